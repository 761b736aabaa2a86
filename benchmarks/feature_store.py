"""The feature store against deflated npz: size, writing and reading one scene, on a CPU.

    python benchmarks/feature_store.py --out DIR [--quick]

One scene of VGGT's, 32 frames. As the reference stores it: (32, 1041, 2048) float32, deflated npz.
The same pooled to 14x14 in float16, as npz and as the store. Values are random normal numbers, the
worst case for compression (real features shrink a little). Files are read twice, the second time
from the operating system's cache. Writes DIR/feature_store.md; takes about a minute.
"""

import argparse
import tempfile
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from harness import seconds
from machine import machine
from threedrs.io.files import write_text
from threedrs.teachers.feature_store import (
    ARRAY,
    SceneOrigin,
    manifest_entry,
    open_scene,
    write_scene,
)

FRAMES, TOKENS, CHANNELS = 32, 1041, 2048
once = partial(seconds, repeats=1, warm_up=0)


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _npz_row(name: str, values: np.ndarray, file: Path) -> tuple[str, float, float, float]:
    write = once(lambda: np.savez_compressed(file, feature=values))

    def read() -> None:
        with np.load(file, allow_pickle=False) as archive:
            assert archive["feature"].shape == values.shape

    read()
    return name, _megabytes(file), write, once(read)


def _store_row(name: str, values: np.ndarray, folder: Path) -> tuple[str, float, float, float]:
    scene = "scene0000_00"
    origin = SceneOrigin(
        scene=scene,
        frame_ids=tuple(range(len(values))),
        input_sha256="",
        teacher="vggt",
        weights_sha256="",
        settings_sha256="",
    )
    write = once(lambda: write_scene(folder, origin, values, input_size=(392, 518), seconds=0.0))

    def read() -> None:
        reader = open_scene(folder, scene)
        assert manifest_entry(reader)["shape"] == list(values.shape)
        assert reader.read(ARRAY).shape == values.shape

    read()
    return name, _megabytes(folder / scene), write, once(read)


def measure(frames: int, tokens: int, channels: int, folder: Path) -> str:
    """Return the table as Markdown."""
    random = np.random.default_rng(0)
    whole = random.standard_normal((frames, tokens, channels), dtype=np.float32)
    pooled = random.standard_normal((frames, 14, 14, channels), dtype=np.float32)
    half = pooled.astype(np.float16)
    rows = [
        _npz_row("reference: all tokens, float32, deflated npz", whole, folder / "whole.npz"),
        _npz_row("14x14, float16, deflated npz", half, folder / "pooled.npz"),
        _store_row("14x14, float16, feature store (checksums verified)", half, folder / "a.zarr"),
    ]
    lines = [
        f"`python benchmarks/feature_store.py --out DIR`, {machine()}, {date.today().isoformat()}; "
        f"one scene: {frames} frames, {tokens} tokens, {channels} channels",
        "",
        "| how | MB | write s | read s |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {mb:.4g} | {write:.3g} | {read:.3g} |" for name, mb, write, read in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for feature_store.md")
    parser.add_argument("--quick", action="store_true", help="a small scene")
    arguments = parser.parse_args()
    sizes = (2, 37, 64) if arguments.quick else (FRAMES, TOKENS, CHANNELS)
    with tempfile.TemporaryDirectory() as folder:
        text = measure(*sizes, Path(folder))
    write_text(arguments.out / "feature_store.md", text)
    print(text)


if __name__ == "__main__":
    main()
