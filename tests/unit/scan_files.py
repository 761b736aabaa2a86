"""A small scan of random pictures with its boxes, for the tests of scene stores."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from threedrs.scannet.boxes import make_box_set
from threedrs.scannet.layout import DataLayout, ScanFiles
from threedrs.scannet.sens import SensHeader, SensWriter
from threedrs.scenes.build import SceneSettings

COLOR, DEPTH = (80, 60), (64, 48)  # width, height
INTRINSIC = np.array([[57.0, 0, 31.5, 0], [0, 58.0, 23.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
TURN = np.array([[0, -1, 0, 1.0], [1, 0, 0, 2.0], [0, 0, 1, 0.5], [0, 0, 0, 1]])
SETTINGS = SceneSettings(stride=10, count=3)
FRAMES = 45  # candidates 0, 20, 30, 40: frame 10 has no pose
BOXES = {
    "gt": make_box_set(
        [(np.array([1.0, 2.0, 2.5, 6, 6, 1.0]), 4, "desk"), (np.full(6, 50.0), 9, "far lamp")]
    ),
    "pred": make_box_set([(np.array([1.5, 2.0, 2.5, 2, 2, 2]), 0, "")]),
}


def make_pose(frame: int) -> np.ndarray:
    angle = 0.02 * frame
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = [0.01 * frame, 0.25, 0]
    return pose


def write_sens(
    path: Path,
    *,
    seed: int = 0,
    frames: int = FRAMES,
    invalid: tuple[int, ...] = (10,),
    color: str = "jpeg",
    depth_shift: float = 1000.0,
) -> None:
    generator = np.random.default_rng(seed)
    header = SensHeader(
        sensor_name="made for a test",
        intrinsic_color=INTRINSIC,
        extrinsic_color=np.eye(4),
        intrinsic_depth=INTRINSIC,
        extrinsic_depth=np.eye(4),
        color_compression=color,
        color_width=COLOR[0],
        color_height=COLOR[1],
        depth_width=DEPTH[0],
        depth_height=DEPTH[1],
        depth_shift=depth_shift,
    )
    with SensWriter(path, header) as sens:
        for frame in range(frames):
            pixels = generator.integers(0, 256, (COLOR[1], COLOR[0], 3)).astype(np.uint8)
            depth = generator.integers(1500, 2500, (DEPTH[1], DEPTH[0])).astype(np.uint16)
            depth[:12, 40:] = 0
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, format="JPEG")
            payload = pixels.tobytes() if color == "raw" else stream.getvalue()
            pose = np.full((4, 4), -np.inf) if frame in invalid else make_pose(frame)
            sens.add(pose, payload, depth)


def make_scan(root: Path, scene: str = "scene0000_00", **options: Any) -> ScanFiles:
    scan = DataLayout(root=root).scan(scene)
    scan.sens.parent.mkdir(parents=True)
    write_sens(scan.sens, **options)
    scan.meta.write_text(f"axisAlignment = {' '.join(map(str, TURN.ravel()))}\n")
    return scan


def chunk_file(store: Path, array: str) -> Path:
    return next(path for path in (store / array / "c").rglob("*") if path.is_file())
