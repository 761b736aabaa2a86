"""Scene stores of generated pictures, for benchmarks: real sizes, nothing to see in them."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from threedrs.scannet.boxes import BoxSet
from threedrs.scenes.store import SceneContents, write_scene_store


def photograph(seed: int, size: tuple[int, int]) -> bytes:
    """Return a JPEG of ``size`` (width, height) with detail at all scales, as photographs have."""
    random = np.random.default_rng(seed)
    width, height = size
    total = np.zeros((height, width, 3), dtype=np.float32)
    for cells in (4, 16, 64, 256):
        coarse = random.integers(0, 256, (max(1, cells * 3 // 4), cells, 3), dtype=np.uint8)
        grown = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        total += np.asarray(grown, dtype=np.float32) / cells**0.5
    total *= 255 / total.max()
    stream = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(stream, format="JPEG", quality=90)
    return stream.getvalue()


def write_scene_stores(folder: Path, scenes: int, frames: int, size: tuple[int, int]) -> list[Path]:
    """Write ``scenes`` scene stores of ``frames`` pictures of ``size``; return their paths.

    The same pictures serve all scenes, each time in another order.
    """
    with ThreadPoolExecutor() as pool:
        jpegs = list(pool.map(lambda seed: photograph(seed, size), range(frames)))
        return list(pool.map(lambda number: _write(folder, number, jpegs), range(scenes)))


def _write(folder: Path, number: int, jpegs: list[bytes]) -> Path:
    frames, scene = len(jpegs), f"scene{number:04d}_00"
    none = BoxSet(boxes=np.zeros((0, 6), np.float32), ids=np.zeros(0, np.int32), labels=())
    masks = np.zeros((0, frames, 27, 27), bool), np.zeros((0, frames, 14, 14), bool)
    contents = SceneContents(
        rgb=np.zeros((frames, 384, 384, 3), np.uint8),
        jpegs=jpegs[number % frames :] + jpegs[: number % frames],
        depth=np.zeros((frames, 384, 384), np.uint16),
        poses=np.tile(np.eye(4), (frames, 1, 1)),
        depth_intrinsic=np.eye(4),
        depth_size=(640, 480),
        patch_xyz=np.zeros((frames, 14, 14, 3), np.float32),
        boxes={"gt": none, "pred": none},
        masks={"gt": masks, "pred": masks},
        attributes={
            "scene": scene,
            "split": "train",
            "frame_ids": list(range(0, 10 * frames, 10)),
            "invalid_depth": "reference",
        },
    )
    write_scene_store(folder / f"{scene}.zarr", contents)
    return folder / f"{scene}.zarr"
