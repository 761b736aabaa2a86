"""What a training sample's read costs, beside decoding the images that the store replaces.

One scene of 32 frames on one core, files warm in memory's cache: (1) from the stores: rgb, patch
coordinates, boxes and masks of the scene store and the teacher's features; (2) as training code
without a store does it: 32 JPEGs of 1296x968 decoded and resized to 384x384, 32 depth PNGs of
640x480 decoded and every pixel unprojected into the world. The second has no features to read, so
the ratio is also given without them. Best and median of the repeats:

    python benchmarks/scene_read.py --repeats 15
"""

import argparse
import datetime
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "BLOSC_NTHREADS": "1"}

import numpy as np
from PIL import Image

from machine import machine
from synthetic_scan import DEPTH, INTRINSIC_DEPTH, depth_image, jpeg, picture, pose, write_scan
from threedrs.io.files import write_json
from threedrs.scannet.boxes import make_box_set
from threedrs.scannet.layout import DataLayout
from threedrs.scenes.build import SceneSettings, build_scene
from threedrs.scenes.store import SceneStore
from threedrs.teachers.store import (
    FORMAT_VERSION,
    MANIFEST,
    FeatureStore,
    SceneOrigin,
    manifest_entry,
    open_scene,
    write_scene,
)

SCENE, FRAMES, OBJECTS, CHANNELS = "scene0000_00", 32, 40, 2048


def make_stores(folder: Path) -> None:
    """Write a scene store of 32 frames and 40 objects, and its features."""
    scan = DataLayout(root=folder).scan(SCENE)
    scan.sens.parent.mkdir(parents=True)
    write_scan(scan.sens, FRAMES)
    generator = np.random.default_rng(1)
    boxes = make_box_set(
        [
            (np.concatenate([generator.uniform(0, 6, 3), generator.uniform(0.3, 2, 3)]), row, "box")
            for row in range(OBJECTS)
        ]
    )
    store = build_scene(
        scan,
        {"gt": boxes, "pred": boxes},
        SceneSettings(stride=1, count=FRAMES),
        folder / f"{SCENE}.zarr",
        "train",
    )
    features = generator.normal(0, 1, (FRAMES, 14, 14, CHANNELS)).astype(np.float16)
    origin = SceneOrigin(
        scene=SCENE,
        frame_ids=tuple(store.frame_ids),
        input_sha256=store.content_hash(),
        teacher="vggt",
        weights_sha256="0" * 64,
        settings_sha256="0" * 64,
    )
    shard = folder / "features.zarr"
    shard.mkdir()
    write_scene(shard, origin, features, input_size=(518, 518), seconds=0.0)
    entry = manifest_entry(open_scene(shard, SCENE))
    write_json(
        shard / MANIFEST,
        {"format_version": FORMAT_VERSION, "channels": CHANNELS, "scenes": {SCENE: entry}},
    )


def read_scene(folder: Path) -> list[Any]:
    """Read what a sample needs of the scene store, opened anew as the loader does."""
    store = SceneStore.open(folder / f"{SCENE}.zarr")
    return [store.rgb(), store.patch_xyz(), store.boxes("gt"), store.masks("gt")]


def read_features(folder: Path) -> np.ndarray:
    """Read the scene's features, the store opened anew."""
    return FeatureStore.open(folder / "features.zarr").features(SCENE)


def write_images(folder: Path) -> None:
    """Write the images of an exported scan."""
    generator = np.random.default_rng(0)
    for frame in range(FRAMES):
        (folder / f"{frame:05d}.jpg").write_bytes(jpeg(picture(generator)))
        Image.fromarray(depth_image(generator)).save(folder / f"{frame:05d}.png")


def decode_images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode 32 JPEGs and 32 PNGs and unproject every depth pixel, (32,480,640,3) f32."""
    v, u = np.mgrid[: DEPTH[1], : DEPTH[0]].astype(np.float32)
    x = ((u - INTRINSIC_DEPTH[0, 2]) / INTRINSIC_DEPTH[0, 0]).astype(np.float32)
    y = ((v - INTRINSIC_DEPTH[1, 2]) / INTRINSIC_DEPTH[1, 1]).astype(np.float32)
    colors, worlds = [], []
    for frame in range(FRAMES):
        with Image.open(io.BytesIO((folder / f"{frame:05d}.jpg").read_bytes())) as image:
            square = image.convert("RGB").resize((384, 384), Image.Resampling.BICUBIC)
        colors.append(np.asarray(square))
        with Image.open(io.BytesIO((folder / f"{frame:05d}.png").read_bytes())) as image:
            z = np.asarray(image).astype(np.float32) / 1000
        matrix = pose(frame).astype(np.float32)
        points = np.stack([x * z, y * z, z], axis=-1)
        worlds.append(points @ matrix[:3, :3].T + matrix[:3, 3])
    return np.stack(colors), np.stack(worlds)


def seconds_of(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the best and the median seconds, after one unmeasured call."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken), float(np.median(taken))


def main() -> None:
    """Make the files, measure the three reads in turn, print one table row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_stores(folder)
        write_images(folder)
        scene = seconds_of(lambda: read_scene(folder), repeats)
        features = seconds_of(lambda: read_features(folder), repeats)
        both = seconds_of(lambda: (read_scene(folder), read_features(folder)), repeats)
        images = seconds_of(lambda: decode_images(folder), max(3, repeats // 3))
    print(
        f"| `python benchmarks/scene_read.py --repeats {repeats}` | {machine()} (1 used) | "
        f"{datetime.date.today().isoformat()} | scene store {scene[0] * 1e3:.0f} ms, features "
        f"{features[0] * 1e3:.0f} ms, both in one sample {both[0] * 1e3:.0f} ms (median "
        f"{both[1] * 1e3:.0f}); decoding and unprojecting 32 + 32 images {images[0] * 1e3:.0f} ms "
        f"(median {images[1] * 1e3:.0f}); ratio {images[0] / both[0]:.0f}x with the features, "
        f"{images[0] / scene[0]:.0f}x without |"
    )


if __name__ == "__main__":
    main()
