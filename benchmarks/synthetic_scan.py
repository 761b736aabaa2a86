"""Scans for measurements: pictures and depth with the detail of a real room's, made from noise."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from threedrs.scannet.sens import SensHeader, SensWriter

COLOR, DEPTH = (1296, 968), (640, 480)  # width, height, as in ScanNet
INTRINSIC_DEPTH = np.array([[577.9, 0, 319.5, 0], [0, 578.7, 239.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
INTRINSIC_COLOR = np.array(
    [[1170.2, 0, 647.8, 0], [0, 1170.2, 483.8, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
)


def field(generator: np.random.Generator, width: int, height: int, channels: int) -> np.ndarray:
    """Return (H,W,channels) f32 around 0: noise of every scale, coarse ones strongest."""
    total = np.zeros((height, width, channels), dtype=np.float32)
    for scale in (4, 8, 16, 32, 64, 128):
        small = generator.normal(0, 1, (height // (960 // scale) + 2, scale, channels))
        for channel in range(channels):
            layer = Image.fromarray(small[..., channel].astype(np.float32))
            big = layer.resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(big) * (4 / scale) ** 0.7
    return total


def picture(generator: np.random.Generator) -> Image.Image:
    """Return a colour image with smooth surfaces, edges and sensor noise."""
    values = field(generator, *COLOR, 3)
    edges = np.sign(field(generator, *COLOR, 1)) * 25
    noise = generator.normal(0, 3, values.shape).astype(np.float32)
    return Image.fromarray(np.clip(128 + 40 * values + edges + noise, 0, 255).astype(np.uint8))


def depth_image(generator: np.random.Generator) -> np.ndarray:
    """Return (H,W) u16, mm: surfaces between one and five metres, steps, and holes."""
    values = field(generator, *DEPTH, 2)
    depth = 2600 + 400 * values[..., 0] + 600 * np.sign(values[..., 1])
    depth[generator.random(depth.shape) < 0.03] = 0
    return np.clip(depth, 0, 6000).astype(np.uint16)


def pose(frame: int) -> np.ndarray:
    """Return (4,4) camera to world of a camera that turns at the centre of a room."""
    turn = 0.05 * frame
    forward = np.array([np.cos(turn), np.sin(turn), -0.3])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    matrix[:3, 3] = [4, 3, 1.6]
    return matrix


def jpeg(image: Image.Image) -> bytes:
    """Return the image as a JPEG of a capture's quality."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def header() -> SensHeader:
    """Return the header of a scan like ScanNet's."""
    return SensHeader(
        sensor_name="benchmark",
        intrinsic_color=INTRINSIC_COLOR,
        extrinsic_color=np.eye(4),
        intrinsic_depth=INTRINSIC_DEPTH,
        extrinsic_depth=np.eye(4),
        color_width=COLOR[0],
        color_height=COLOR[1],
        depth_width=DEPTH[0],
        depth_height=DEPTH[1],
    )


def write_scan(path: Path, frames: int, seed: int = 0) -> None:
    """Write a .sens of ``frames`` different frames."""
    generator = np.random.default_rng(seed)
    with SensWriter.create(path, header()) as writer:
        for frame in range(frames):
            writer.add(pose(frame), jpeg(picture(generator)), depth_image(generator))
