"""VGGT's own kernels against a warm torch.compile and plain eager code, on one GPU.

    PYTHONPATH=src python benchmarks/teacher_kernels_vs_compile.py --out DIR
    PYTHONPATH=src python benchmarks/teacher_kernels_vs_compile.py --out DIR --quick    on a CPU

Four ways through VGGT-1B's aggregator, with the same random weights and the same scene, in the size
that the extraction uses (32 frames of 518x392 pixels):

    kernels   `threedrs.teachers.vggt.kernels` between the matrix products, as the extraction runs
    compiled  the same blocks in plain torch, each compiled by torch.compile
    eager     the same blocks in plain torch
    float32   plain torch with float32 weights and no autocast: what the others are compared with

Attention is the same function in all of them. Each way runs twice in a process of its own, first
with empty caches of Triton and torch.compile (cold), then with what the first run left there
(warm). The scene of the first pass is the time that a job waits for compilation. Writes
DIR/kernels.json and DIR/kernels.md. Takes about four minutes on an H200. ``--quick`` takes a small
model and compiles without code generation, to see that the script runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from harness import choose_device, random_vggt, seconds, wait_for_gpu
from threedrs.teachers.image_extractor import patch_features, pool_features, prepare
from threedrs.teachers.vggt import attention, transformer

WAYS = ("kernels", "compiled", "eager", "float32")
TINY = {
    "embed_dim": 384,
    "depth": 2,
    "num_heads": 6,
    "patch_embed": "dinov2_vits14_reg",
    "patch_embed_depth": 2,
}
PATCH = 14


def forward(way: str, model: nn.Module, pictures_SHW3: Tensor) -> Tensor:
    """Return the patch features of one scene, (S, P, C)."""
    if way != "float32":
        return patch_features(model, pictures_SHW3)
    images_S3HW = pictures_SHW3.permute(0, 3, 1, 2).float().div(255)
    with torch.inference_mode():
        return model(images_S3HW[None])[0]


def measure_way(way: str, quick: bool, out: Path) -> None:
    """Measure one way in this process; write its figures and its pooled features to ``out``."""
    device = choose_device()
    frames, height, width = (2, 112, 140) if quick else (32, 392, 518)
    generator = torch.Generator().manual_seed(1)
    shape = (frames, height, width, 3)
    pictures = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device)
    model: nn.Module = random_vggt(TINY if quick else {}, device)
    if way != "float32":
        model = prepare(model, device)
    if way == "compiled":
        # A block that falls back to eager code unnoticed would spoil the comparison.
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        # The kernel that attend() chooses is the same for all ways, and is not to be traced.
        transformer.attend = torch.compiler.disable(transformer.attend)
        for block in model.modules():
            if isinstance(block, transformer.Block):
                block.compile(dynamic=False, backend="aot_eager" if quick else "inductor")
    use_triton = way == "kernels" and transformer._has_triton()
    with patch.object(transformer, "_has_triton", lambda: use_triton):
        wait_for_gpu()
        start = time.perf_counter()
        features = forward(way, model, pictures)
        wait_for_gpu()
        first = time.perf_counter() - start
        del features
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steady = seconds(lambda: forward(way, model, pictures), repeats=3 if quick else 10)
        features = forward(way, model, pictures)
    pooled, _ = pool_features(features, (height // PATCH, width // PATCH), grid=14)
    figures = {
        "first scene, seconds": first,
        "milliseconds a scene": 1000 * steady,
        "peak gigabytes": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0,
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "attention": attention.kernel_name(),
    }
    torch.save({"figures": figures, "features": pooled.cpu()}, out)


def differences(features: Tensor, exact: Tensor) -> dict[str, float]:
    """Return how far pooled features are from those of float32."""
    features, exact = features.float(), exact.float()
    cosine = nn.functional.cosine_similarity(features, exact, dim=-1)
    return {
        "largest difference": float((features - exact).abs().max()),
        "relative difference": float((features - exact).norm() / exact.norm()),
        "smallest cosine of a token": float(cosine.min()),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Return the figures of every way, each measured in a process with its own caches."""
    rows: dict[str, dict[str, Any]] = {}
    features = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            caches = {
                name: f"{folder}/{way}/{name}"
                for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
            }
            for state in ("cold", "warm"):
                print(f"{way}, {state}", flush=True)
                file = Path(folder) / f"{way}.pt"
                command = [sys.executable, __file__, "--way", way, "--out", str(file)]
                command += ["--quick"] if quick else []
                subprocess.run(command, env=os.environ | caches, check=True)
                found = torch.load(file, weights_only=True)
                row = rows.setdefault(way, {})
                row[f"first scene, {state}, seconds"] = found["figures"].pop("first scene, seconds")
                row.update(found["figures"])
                features[way] = found["features"]
    for way, row in rows.items():
        row.update(differences(features[way], features["float32"]))
    kernels, compiled = rows["kernels"], rows["compiled"]
    saved = (compiled["milliseconds a scene"] - kernels["milliseconds a scene"]) / 1000
    waited = compiled["first scene, warm, seconds"] - kernels["first scene, warm, seconds"]
    return {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "machine": kernels["machine"],
        "attention": kernels["attention"],
        "kernels against compiled": differences(features["kernels"], features["compiled"]),
        "seconds a scene that the kernels save": saved,
        "seconds more that compiled waits, warm": waited,
        "ways": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    figures = [
        name for name, value in result["ways"]["kernels"].items() if isinstance(value, float)
    ]
    ways = result["ways"]
    lines = [
        f"{result['machine']}, {result['date']}, torch {result['torch']}, {result['attention']}; "
        "differences are to float32, of features pooled to 14x14.",
        "",
        f"| figure | {' | '.join(ways)} |",
        f"|---|{'---|' * len(ways)}",
    ]
    lines += [
        f"| {name} | {' | '.join(f'{row[name]:.4g}' for row in ways.values())} |"
        for name in figures
    ]
    pair = ", ".join(
        f"{name} {value:.4g}" for name, value in result["kernels against compiled"].items()
    )
    lines += [
        "",
        f"Kernels against compiled: {pair}. Kernels save "
        f"{1000 * result['seconds a scene that the kernels save']:.4g} ms a scene; with warm "
        f"caches compiled starts {result['seconds more that compiled waits, warm']:.4g} s later.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all ways, print and write; with ``--way`` measure one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="a small model on any machine")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        measure_way(arguments.way, arguments.quick, arguments.out)
        return
    result = measure(arguments.quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "kernels.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "kernels.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
