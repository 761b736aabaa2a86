"""Boxes drawn into frames by projection.

World boxes (centre + size, axis-aligned metres) go through the inverse pose and the depth
intrinsic onto the depth image's pixels, which the colour image shares up to scale. Lines are drawn
at twice the size and reduced, with a dark rim, so that they show on any ground; each box carries
its label, so that colour is not the only mark.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from threedrs.visualization.scene_view import SceneView

NEAR = 0.05  # metres in front of the camera before which an edge is cut
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]
LEAST_SEEN = 0.1  # share of a box that must be in view for a frame to count as showing it
FRAME_WIDTH = 480  # pixels
OVERSAMPLING = 2
RIM = "#101010"
# One list for boxes and charts, so that a run has one colour on the whole page. These are the
# twelve colours of Krzywinski's palette for colour blindness (https://mk.bcgsc.ca/colorblind), in
# an order that puts the light ones last. Green is for what is true.
RUN_COLOURS = (
    *("#008DF9", "#FF6E3A", "#8400CD", "#009F81", "#E20134", "#FFC33B"),
    *("#9F0162", "#00C2F9", "#FF5AAF", "#A40122", "#00FCCF", "#FFB2FD"),
)
TRUE_COLOUR = "#4cd964"
LABEL_SIZE = 14  # pixels


@dataclass(frozen=True, kw_only=True)
class DrawnBox:
    """A box (6,) float, the colour of its edges, and what it is."""

    box: NDArray[np.floating]
    colour: str
    label: str


def corners(box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the (8, 3) corners of a centre + size box; bit a of i: high on axis a."""
    signs = np.array([[(i >> axis & 1) - 0.5 for axis in range(3)] for i in range(8)])
    return np.asarray(box[:3], np.float64) + signs * np.asarray(box[3:], np.float64)


def to_camera(points: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return world points (..., 3) in the camera frame of a camera-to-world ``pose`` (4, 4)."""
    return (points - pose[:3, 3]) @ pose[:3, :3]


def project(camera: NDArray[np.float64], intrinsic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return pixels (..., 2) as (u, v) of camera points (..., 3) whose z is above 0."""
    u = intrinsic[0, 0] * camera[..., 0] / camera[..., 2] + intrinsic[0, 2]
    v = intrinsic[1, 1] * camera[..., 1] / camera[..., 2] + intrinsic[1, 2]
    return np.stack([u, v], axis=-1)


def seen_shares(view: SceneView, box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how much of ``box`` each frame shows, (V,) from 0 to 1.

    125 sample points of the box count where they fall in the image and no measured depth lies
    more than half the box's diagonal in front of them.
    """
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 3), axis=-1).reshape(-1, 3)
    points = np.asarray(box[:3], np.float64) + grid * np.asarray(box[3:], np.float64)
    slack = float(np.linalg.norm(box[3:])) / 2
    size = view.depth_VHW.shape[1]
    shares = np.zeros(len(view.frame_ids))
    for frame, pose in enumerate(view.poses_V44):
        camera = to_camera(points, pose)
        ahead = camera[camera[:, 2] > NEAR]
        pixels = np.floor(project(ahead, view.intrinsic) * size / view.depth_size).astype(int)
        inside = ((pixels >= 0) & (pixels < size)).all(axis=1)
        measured = view.depth_VHW[frame, pixels[inside, 1], pixels[inside, 0]] / 1000.0
        visible = (measured == 0) | (measured > ahead[inside, 2] - slack)
        shares[frame] = visible.sum() / len(points)
    return shares


def best_frame(view: SceneView, boxes: Sequence[DrawnBox]) -> int:
    """Return the frame that shows most of the first box in view; the middle one without any."""
    for drawn in boxes:
        shares = seen_shares(view, drawn.box)
        if shares.max() >= LEAST_SEEN:
            return int(np.argmax(shares))
    return len(view.frame_ids) // 2


def draw_boxes(view: SceneView, frame: int, boxes: Sequence[DrawnBox]) -> Image.Image:
    """Return ``frame`` as captured, with the boxes' edges; the first box is drawn on top."""
    image = view.image(frame, FRAME_WIDTH * OVERSAMPLING)
    draw = ImageDraw.Draw(image)
    scale = image.width / view.depth_size[0]
    tops = []
    for rank, drawn in reversed(list(enumerate(boxes))):
        camera = to_camera(corners(drawn.box), view.poses_V44[frame])
        lines = [clip(camera[first], camera[second]) for first, second in EDGES]
        ends = [project(line, view.intrinsic) * scale for line in lines if line is not None]
        # Boxes further down are wider, so that they show beside a box in the same place.
        for colour, width in ((RIM, 4), (drawn.colour, 2)):
            for line in ends:
                points = [(float(u), float(v)) for u, v in line]
                draw.line(points, fill=colour, width=(width + 2 * rank_width(rank)) * OVERSAMPLING)
        inside = [p for line in ends for p in line if (p >= 0).all() and (p < image.size).all()]
        if inside:
            top = min(inside, key=lambda point: point[1])
            tops.append(((float(top[0]), float(top[1])), drawn))
    draw_labels(draw, tops[::-1], image.size)
    return image.resize((FRAME_WIDTH, round(FRAME_WIDTH * image.height / image.width)))


def rank_width(rank: int) -> int:
    """Return how many times two pixels wider the lines of the box of this rank are.

    Two steps a rank, so that a line shows on both sides of the rim of one in the same place.
    """
    return 2 * min(rank, 2)


def draw_labels(
    draw: ImageDraw.ImageDraw,
    labels: Sequence[tuple[tuple[float, float], DrawnBox]],
    size: tuple[int, int],
    label_size: int = LABEL_SIZE,
) -> None:
    """Write each label in its box's colour on a dark plate above its point.

    A plate that would leave the image is moved into it. One that would cover another goes below it
    as long as there is room.
    """
    font = ImageFont.load_default(label_size * OVERSAMPLING)
    placed: list[tuple[float, float, float, float]] = []  # left, top, right, bottom
    for point, drawn in labels:
        left, top, right, bottom = draw.textbbox((0, 0), drawn.label, font=font)
        width, height = right - left + 12, bottom - top + 12
        x = min(max(point[0] - width / 2, 0), size[0] - width)
        y = min(max(point[1] - height - 4, 0), size[1] - height)
        while y + 2 * height <= size[1] and any(
            x < other[2] and other[0] < x + width and y < other[3] and other[1] < y + height
            for other in placed
        ):
            y += height / 2
        placed.append((x, y, x + width, y + height))
        draw.rectangle(placed[-1], fill=RIM)
        draw.text((x + 6 - left, y + 6 - top), drawn.label, fill=drawn.colour, font=font)


def clip(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the part of an edge (camera frame) in front of the near plane, (2, 3), or None."""
    if first[2] < NEAR and second[2] < NEAR:
        return None
    ends = np.stack([first, second])
    for near, far in ((0, 1), (1, 0)):
        if ends[near, 2] < NEAR:
            share = (NEAR - ends[near, 2]) / (ends[far, 2] - ends[near, 2])
            ends[near] += share * (ends[far] - ends[near])
    return ends
