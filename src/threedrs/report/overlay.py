"""Boxes drawn into frames by projection.

World boxes (centre + size, axis-aligned metres) go through the inverse pose and the depth
intrinsic onto the stored 384x384 picture, whose rows and columns are the depth image's, scaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from threedrs.scenes.store import SceneStore

NEAR = 0.05  # metres in front of the camera before which an edge is cut
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]


@dataclass(frozen=True, kw_only=True)
class DrawnBox:
    """A box (6,) float and the colour of its edges."""

    box: NDArray[np.floating]
    colour: str


def corners(box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the (8, 3) corners of a centre + size box; bit a of i: high on axis a."""
    signs = np.array([[(i >> axis & 1) - 0.5 for axis in range(3)] for i in range(8)])
    return np.asarray(box[:3], np.float64) + signs * np.asarray(box[3:], np.float64)


def to_camera(points: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return world points (..., 3) in the camera frame of a camera-to-world ``pose`` (4, 4)."""
    return (points - pose[:3, 3]) @ pose[:3, :3]


def project(camera: NDArray[np.float64], store: SceneStore, size: int) -> NDArray[np.float64]:
    """Return pixel positions (..., 2) on the stored ``size`` x ``size`` picture; z must be > 0."""
    intrinsic, (width, height) = store.depth_intrinsic(), store.depth_size
    u = intrinsic[0, 0] * camera[..., 0] / camera[..., 2] + intrinsic[0, 2]
    v = intrinsic[1, 1] * camera[..., 1] / camera[..., 2] + intrinsic[1, 2]
    return np.stack([u * size / width, v * size / height], axis=-1)


def best_frame(store: SceneStore, box: NDArray[np.floating] | None) -> int:
    """Return the frame that sees most of ``box`` unoccluded; the middle frame without a box.

    Sample points of the box count where they fall in the picture and no measured depth lies more
    than half the box in front of them.
    """
    depths = store.depth()
    count, size = depths.shape[0], depths.shape[1]
    if box is None:
        return count // 2
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 3), axis=-1).reshape(-1, 3)
    points = np.asarray(box[:3]) + grid * np.asarray(box[3:])
    slack = float(np.linalg.norm(box[3:])) / 2
    seen = []
    for frame, pose in enumerate(store.poses()):
        camera = to_camera(points, pose)
        ahead = camera[camera[:, 2] > NEAR]
        pixels = np.floor(project(ahead, store, size)).astype(int)
        inside = ((pixels >= 0) & (pixels < size)).all(axis=1)
        measured = depths[frame, pixels[inside, 1], pixels[inside, 0]] / 1000.0
        visible = (measured == 0) | (measured > ahead[inside, 2] - slack)
        seen.append(int(visible.sum()))
    return int(np.argmax(seen))


def draw_boxes(store: SceneStore, frame: int, boxes: Sequence[DrawnBox]) -> Image.Image:
    """Return frame ``frame`` of the store, as the camera saw it, with the boxes' edges."""
    picture = Image.fromarray(store.rgb()[frame])
    draw = ImageDraw.Draw(picture)
    pose = store.poses()[frame]
    for drawn in boxes:
        camera = to_camera(corners(drawn.box), pose)
        for first, second in EDGES:
            ends = _clip(camera[first], camera[second])
            if ends is not None:
                line = [tuple(point) for point in project(ends, store, picture.width)]
                draw.line(line, fill=drawn.colour, width=3)
    width, height = store.depth_size
    return picture.resize((picture.width, round(picture.width * height / width)))


def _clip(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the part of an edge in front of the near plane, (2, 3), or None."""
    if first[2] < NEAR and second[2] < NEAR:
        return None
    ends = np.stack([first, second])
    for near, far in ((0, 1), (1, 0)):
        if ends[near, 2] < NEAR:
            share = (NEAR - ends[near, 2]) / (ends[far, 2] - ends[near, 2])
            ends[near] += share * (ends[far] - ends[near])
    return ends


def contact_sheet(store: SceneStore, columns: int = 4) -> Image.Image:
    """Return up to ``columns`` evenly spaced frames side by side."""
    rgb = store.rgb()
    chosen = np.unique(np.linspace(0, len(rgb) - 1, columns).astype(int))
    width, height = store.depth_size
    tile = (240, round(240 * height / width))
    sheet = Image.new("RGB", (tile[0] * len(chosen), tile[1]))
    for column, frame in enumerate(chosen):
        sheet.paste(Image.fromarray(rgb[frame]).resize(tile), (tile[0] * column, 0))
    return sheet
