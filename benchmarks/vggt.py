"""VGGT features of a shard: the reference's way and ours, stage by stage, in one run.

    python benchmarks/vggt.py --out DIR            on a GPU: VGGT-1B's sizes, random weights
    python benchmarks/vggt.py --out DIR --quick    on a CPU: a tiny model, to see that it runs
    python benchmarks/vggt.py --out DIR --forward  our forward pass alone, of random pictures

The reference's way keeps all 24 layers' tokens, float32 weights under autocast, and writes the last
layer unpooled as a deflated npz. Ours is `extract_shard` itself, over scene stores with 1296x968
JPEG pictures. Writes DIR/vggt.json and DIR/vggt.md. Takes about 90 s on an H100, 20 of them for
compressing one scene as the reference does.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_time import kernels_of, time_shares
from harness import choose_device, device_name, random_vggt, seconds
from scene_stores import photograph, write_scene_stores
from threedrs.scenes.store import SceneStore
from threedrs.teachers import extract
from threedrs.teachers.feature_store import SceneOrigin, open_scene, write_scene
from threedrs.teachers.image_decoding import decoded_ahead, preprocess_image
from threedrs.teachers.image_extractor import (
    ImageExtractor,
    patch_features,
    pool_features,
    prepare,
)
from threedrs.teachers.teacher import TeacherSettings
from threedrs.teachers.vggt import attention
from threedrs.teachers.vggt.aggregator import SPECIAL_TOKENS, VGGTAggregator
from threedrs.teachers.vggt.extractor import IMAGES, TINY, TINY_IMAGES


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is measured: a model, and scenes of so many frames."""

    model: dict[str, Any]
    frames: int
    scenes: int
    picture: tuple[int, int]  # width, height as captured
    pictures: Any
    matmul: int  # side of the matrices whose product measures the arithmetic rate


REAL = Size(model={}, frames=32, scenes=14, picture=(1296, 968), pictures=IMAGES, matmul=8192)
QUICK = Size(model=TINY, frames=2, scenes=3, picture=(64, 48), pictures=TINY_IMAGES, matmul=256)


def matmul_rate(side: int, device: torch.device) -> float:
    """Return the operations a second of one large bfloat16 product of random matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, repeats=5, warm_up=2)


def scene_origin(store: Path) -> SceneOrigin:
    """Return an origin for the scene at ``store``."""
    opened = SceneStore.open(store)
    return SceneOrigin(
        scene=opened.scene,
        frame_ids=tuple(opened.frame_ids),
        input_sha256="",
        teacher="vggt",
        weights_sha256="",
        settings_sha256="",
    )


def load_pictures(size: Size, store: Path) -> Tensor:
    """Return the pictures of one scene, (S, H, W, 3) uint8."""
    _, images_SHW3 = next(decoded_ahead({store: scene_origin(store)}, size.pictures))
    return torch.from_numpy(images_SHW3)


def operations(model: VGGTAggregator, frames: int, patches: int) -> dict[str, float]:
    """Return the floating-point operations of one scene, by kind (2 a multiply and add)."""
    tokens = patches + SPECIAL_TOKENS
    channels = model.camera_token.shape[-1]
    encoder, depth = len(model.patch_embed.blocks), len(model.frame_blocks)
    blocks = encoder + 2 * depth
    return {
        "linear": 24.0 * channels**2 * tokens * frames * blocks,
        "attention within frames": 4.0 * tokens**2 * channels * frames * (encoder + depth),
        "attention over the scene": 4.0 * (tokens * frames) ** 2 * channels * depth,
    }


def reference_forward(model: VGGTAggregator, images_S3HW: Tensor) -> list[Tensor]:
    """Return every layer's tokens, (1, S, T, 2 D) each, as the reference keeps them."""
    kept: list[Tensor] = []
    of_frame: list[Tensor] = []
    frames = len(images_S3HW)

    def keep_frame(module: nn.Module, arguments: Any, output: Tensor) -> None:
        of_frame[:] = [output]

    def keep_pair(module: nn.Module, arguments: Any, output: Tensor) -> None:
        of_scene_STD = output.unflatten(1, (frames, -1))
        kept.append(torch.cat((of_frame[0][None], of_scene_STD), dim=-1))

    hooks = [block.register_forward_hook(keep_frame) for block in model.frame_blocks]
    hooks += [block.register_forward_hook(keep_pair) for block in model.global_blocks]
    try:
        kind = images_S3HW.device.type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            model(images_S3HW[None])
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def measure_reference(size: Size, model: VGGTAggregator, images: Tensor, folder: Path) -> Any:
    """Return seconds of the reference's stages for one scene, and the megabytes it writes."""
    with patch.object(attention, "flash_attention_3", lambda: None):
        forward = seconds(lambda: reference_forward(model, images), repeats=2)
        last = reference_forward(model, images)[-1]
    host: list[np.ndarray] = []
    download = seconds(lambda: host.append(last.float().cpu().numpy()), repeats=1, warm_up=0)
    file = folder / "scene.npz"
    arrays = {"feature": host[0][0], "ps_idx": np.array(SPECIAL_TOKENS)}
    write = seconds(lambda: np.savez_compressed(file, **arrays), repeats=1, warm_up=0)
    return {
        "forward": forward,
        "download": download,
        "deflate and write": write,
        "a scene": forward + download + write,
        "megabytes": file.stat().st_size / 1e6,
    }


def measure_stages(size: Size, model: nn.Module, stores: list[Path], folder: Path) -> Any:
    """Return seconds of our stages for one scene, each by itself."""
    device = choose_device()
    origin = scene_origin(stores[0])
    decode = seconds(lambda: load_pictures(size, stores[0]))
    pictures = load_pictures(size, stores[0])
    if device.type == "cuda":
        pictures = pictures.pin_memory()
    on_device = pictures.to(device)
    grid = size.pictures.grid(pictures.shape[1])
    features_SPC = patch_features(model, on_device)
    pooled, _ = pool_features(features_SPC, grid, grid=14)
    host = torch.empty(pooled.shape, dtype=pooled.dtype, pin_memory=device.type == "cuda")
    host.copy_(pooled)

    def write() -> None:
        size_px = (pictures.shape[1], pictures.shape[2])
        write_scene(folder, origin, host.numpy(), input_size=size_px, seconds=0.0)

    return {
        "decode and resize (8 threads, ahead)": decode,
        "upload": seconds(lambda: pictures.to(device)),
        "forward": seconds(lambda: patch_features(model, on_device), repeats=5),
        "pool": seconds(lambda: pool_features(features_SPC, grid, grid=14)),
        "download": seconds(lambda: host.copy_(pooled)),
        "write (behind)": seconds(write),
    }


def measure_shard(size: Size, model: nn.Module, stores: list[Path], folder: Path) -> Any:
    """Return what `extract_shard` takes: a scene in steady state, and the whole shard."""
    source = ImageExtractor(
        "vggt", size.pictures, identify=lambda: "0" * 64, load=lambda: model, heavy=False
    )
    out = folder / "shard.zarr"
    settings = TeacherSettings(name="vggt")
    start = time.perf_counter()
    with patch.object(extract, "open_extractor", lambda settings: source):
        manifest = extract.extract_shard(stores, settings, out)
    whole = time.perf_counter() - start
    each = [open_scene(out, scene).attributes["seconds"] for scene in manifest["scenes"]]
    steady = each[2:]  # the first scenes wait for decoding and for the kernels to be compiled
    written = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    return {
        "a scene, steady state": statistics.mean(steady),
        "slowest of these": max(steady),
        "whole shard": whole,
        "megabytes a scene": written / 1e6 / len(each),
    }


def measure_attention(model: VGGTAggregator, frames: int, tokens: int) -> dict[str, float]:
    """Return seconds of one layer's attention over the scene and within frames, by kernel."""
    layer: Any = model.global_blocks[0].attn
    heads, channels = layer.heads, model.head_channels
    found: dict[str, float] = {}
    kernels: dict[str, Callable[..., Any]] = {}
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):

        def run(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                q, k, v = (x.transpose(1, 2) for x in (q, k, v))
                return nn.functional.scaled_dot_product_attention(q, k, v)

        kernels[f"torch {backend.name}"] = run
    flash = attention.flash_attention_3()
    if flash is not None:
        kernels["FlashAttention-3"] = flash
    for where, shape in (
        ("over the scene", (1, frames * tokens, heads, channels)),
        ("within frames", (frames, tokens, heads, channels)),
    ):
        q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        for name, kernel in kernels.items():
            found[f"{name}, {where}"] = seconds(partial(kernel, q, k, v))
    return found


def measure_precision(size: Size, device: torch.device, pictures: Tensor) -> dict[str, float]:
    """Return how far bfloat16's pooled features are from float32's, for eight frames."""
    grid = size.pictures.grid(pictures.shape[1])
    exact_model = random_vggt(size.model, device)
    eight = pictures[:8].to(device)
    images = eight.permute(0, 3, 1, 2).float().div(255)
    with torch.inference_mode():
        exact = pool_features(exact_model(images[None])[0], grid, grid=14)[0].float()
    rough = pool_features(patch_features(prepare(exact_model, device), eight), grid, grid=14)[0]
    cosine = nn.functional.cosine_similarity(exact, rough.float(), dim=-1)
    return {
        "relative difference": float((rough.float() - exact).norm() / exact.norm()),
        "smallest cosine of a token": float(cosine.min()),
    }


def describe(size: Size, model: VGGTAggregator, pictures: Tensor) -> dict[str, Any]:
    """Return the machine, what is measured, and the floor of its time."""
    device = choose_device()
    rate = matmul_rate(size.matmul, device)
    rows, columns = size.pictures.grid(pictures.shape[1])
    work = operations(model, size.frames, rows * columns)
    return {
        "machine": device_name(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "frames": size.frames,
        "picture": list(pictures.shape[1:3]),
        "attention": attention.kernel_name(),
        "TFLOP of a scene": {name: count / 1e12 for name, count in work.items()},
        "matmul TFLOP/s": rate / 1e12,
        "arithmetic floor": sum(work.values()) / rate,
    }


def measure_forward(size: Size) -> dict[str, Any]:
    """Return what our forward pass takes by itself, and where its time goes on a GPU."""
    device = choose_device()
    model = random_vggt(size.model, device)
    shape = preprocess_image(photograph(0, size.picture), size.pictures).shape
    pictures = torch.randint(0, 256, (size.frames, *shape), dtype=torch.uint8)
    result = describe(size, model, pictures)
    fast, on_device = prepare(model, device), pictures.to(device)
    forward = partial(patch_features, fast, on_device)
    result["stages"] = {"forward": seconds(forward, repeats=10, warm_up=2)}
    if device.type == "cuda":
        shares = time_shares(kernels_of(forward))
        span = shares.pop("seconds")
        result["forward by kind"] = {kind: share * span for kind, share in shares.items()}
    return result


def measure(size: Size, folder: Path) -> dict[str, Any]:
    """Return all results."""
    device = choose_device()
    on_gpu = device.type == "cuda"
    print("writing scene stores", flush=True)
    stores = write_scene_stores(folder / "scenes", size.scenes, size.frames, size.picture)
    model = random_vggt(size.model, device)
    pictures = load_pictures(size, stores[0])
    rows, columns = size.pictures.grid(pictures.shape[1])
    result = describe(size, model, pictures)
    print("ours", flush=True)
    fast = prepare(model, device)
    result["shard"] = measure_shard(size, fast, stores, folder)
    result["stages"] = measure_stages(size, fast, stores, folder)
    if on_gpu:
        on_device = pictures.to(device)
        result["peak gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
        with patch.object(attention, "flash_attention_3", lambda: None):
            result["forward, cuDNN attention"] = seconds(partial(patch_features, fast, on_device))
        shares = time_shares(kernels_of(partial(patch_features, fast, on_device)))
        span = shares.pop("seconds")
        result["forward by kind"] = {kind: share * span for kind, share in shares.items()}
        tokens = rows * columns + SPECIAL_TOKENS
        result["one layer's attention"] = measure_attention(model, size.frames, tokens)
    print(json.dumps(result, indent=1), flush=True)
    del model, fast  # the GPU holds one model at a time
    print("precision", flush=True)
    result["bfloat16 against float32"] = measure_precision(size, device, pictures)
    print("the reference's way", flush=True)
    model = random_vggt(size.model, device)
    images = pictures.to(device).permute(0, 3, 1, 2).float().div(255)
    result["reference"] = measure_reference(size, model, images, folder)
    return result


def table(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = [
        ("arithmetic floor (operations / measured matmul rate)", result["arithmetic floor"]),
        *((f"reference: {name}", value) for name, value in result.get("reference", {}).items()),
        *((f"ours: {name}", value) for name, value in result["stages"].items()),
        *((f"ours: {name}", value) for name, value in result.get("shard", {}).items()),
        *((name, value) for name, value in result.items() if name.startswith("forward,")),
        *(
            (f"{part}: {name}", value)
            for part in ("forward by kind", "one layer's attention", "bfloat16 against float32")
            for name, value in result.get(part, {}).items()
        ),
    ]
    head = (
        f"{result['machine']}, {result['date']}, torch {result['torch']}, {result['frames']} "
        f"frames of {result['picture'][1]}x{result['picture'][0]}, {result['attention']}; seconds "
        "unless the row says otherwise"
    )
    lines = [head, "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for vggt.json and vggt.md")
    parser.add_argument("--quick", action="store_true", help="a tiny model on any machine")
    parser.add_argument("--forward", action="store_true", help="our forward pass alone")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else REAL
    with tempfile.TemporaryDirectory() as folder:
        result = measure_forward(size) if arguments.forward else measure(size, Path(folder))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "vggt.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "vggt.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
