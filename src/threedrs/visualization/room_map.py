"""A scene from above, with boxes and cameras.

The frames' depth measurements become world points. What lies above head height is excluded, and of
the points that fall on one pixel the highest shows. Costs a few tenths of a second for 32 frames.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from threedrs.visualization.box_overlay import (
    LABEL_SIZE,
    OVERSAMPLING,
    RIM,
    DrawnBox,
    draw_labels,
    rank_width,
)
from threedrs.visualization.scene_view import SceneView

STRIDE = 2  # every second row and column of the depth image
CELL = 4  # pixels of the map that one cell of the raster covers
CEILING = 2.0  # metres above the lowest point; higher points would hide the room
SIDE = 480  # pixels of the longer side
MARGIN = 0.3  # metres around what is shown
EMPTY = (214, 216, 220)
CAMERA = "#ffd60a"


class RoomMap:
    """The top view of one scene, drawn once; boxes go onto copies."""

    def __init__(self, view: SceneView) -> None:
        self._view = view
        points_N3, colours_N3 = _below_ceiling(*view.points(STRIDE))
        self._place(points_N3, view.poses_V44[:, :3, 3])
        self._ground = self._raster(points_N3, colours_N3)

    def with_boxes(
        self, boxes: Sequence[DrawnBox], frames: Sequence[int], *, crowded: bool = False
    ) -> Image.Image:
        """Return the map with the boxes' outlines and the cameras; those of ``frames`` stand out.

        North is the world's y axis, right its x axis; the bar is one metre long. ``crowded``: lines
        are thin and labels small, for all boxes of a scene; a box without a label gets none.
        """
        image = self._ground.copy()
        draw = ImageDraw.Draw(image)
        path = [self._pixel(pose[:3, 3]) for pose in self._view.poses_V44]
        for point in path:
            _dot(draw, point, 2 * OVERSAMPLING, CAMERA)
        for frame in frames:
            _dot(draw, path[frame], 4 * OVERSAMPLING, CAMERA)
            ahead = self._view.poses_V44[frame, :3, 2]
            reach = self._pixel(self._view.poses_V44[frame, :3, 3] + 0.6 * ahead)
            draw.line([path[frame], reach], fill=CAMERA, width=2 * OVERSAMPLING)
        for rank, drawn in reversed(list(enumerate(boxes))):
            first = self._pixel(drawn.box[:3] - drawn.box[3:] / 2)
            second = self._pixel(drawn.box[:3] + drawn.box[3:] / 2)
            outline = (first[0], second[1], second[0], first[1])
            width = 1 if crowded else 2 + 2 * rank_width(rank)
            draw.rectangle(outline, outline=RIM, width=(width + 2) * OVERSAMPLING)
            draw.rectangle(outline, outline=drawn.colour, width=width * OVERSAMPLING)
        labels = [
            (self._pixel(drawn.box[:3] + drawn.box[3:] / 2 * np.array([0, 1, 1])), drawn)
            for drawn in boxes
            if drawn.label
        ]
        draw_labels(draw, labels, image.size, LABEL_SIZE // 2 if crowded else LABEL_SIZE)
        self._draw_metre(draw, image.height)
        return image.resize((image.width // OVERSAMPLING, image.height // OVERSAMPLING))

    def _place(self, points_N3: NDArray[np.float64], cameras_V3: NDArray[np.float64]) -> None:
        """Fix the map's extent: all but stray points, and all cameras."""
        edges = np.percentile(points_N3[:, :2], (0.5, 99.5), axis=0)
        low = np.minimum(edges[0], cameras_V3[:, :2].min(axis=0)) - MARGIN
        high = np.maximum(edges[1], cameras_V3[:, :2].max(axis=0)) + MARGIN
        self._low, self._high = low, high
        self._scale = SIDE * OVERSAMPLING / float((high - low).max())

    def _pixel(self, point: NDArray[np.floating]) -> tuple[float, float]:
        x, y = (point[:2] - self._low) * self._scale
        return float(x), float((self._high[1] - self._low[1]) * self._scale - y)

    def _raster(self, points_N3: NDArray[np.float64], colours_N3: NDArray[np.uint8]) -> Image.Image:
        size = np.ceil((self._high - self._low) * self._scale / CELL).astype(int) + 1
        raster = np.full((size[1], size[0], 3), EMPTY, dtype=np.uint8)
        filled = np.zeros((size[1], size[0]), dtype=bool)
        order = np.argsort(points_N3[:, 2], kind="stable")
        cells = ((points_N3[order, :2] - self._low) * self._scale / CELL).astype(int)
        inside = ((cells >= 0) & (cells < size)).all(axis=1)
        rows = size[1] - 1 - cells[inside, 1]
        raster[rows, cells[inside, 0]] = colours_N3[order][inside]
        filled[rows, cells[inside, 0]] = True
        _fill_pinholes(raster, filled)
        image = Image.fromarray(raster)
        shown = np.round((self._high - self._low) * self._scale).astype(int)
        return image.resize((int(shown[0]), int(shown[1])), Image.Resampling.NEAREST)

    def _draw_metre(self, draw: ImageDraw.ImageDraw, height: int) -> None:
        left, bottom = 8 * OVERSAMPLING, height - 10 * OVERSAMPLING
        for colour, width in ((RIM, 5), ("#ffffff", 3)):
            ends = [(left, bottom), (left + self._scale, bottom)]
            draw.line(ends, fill=colour, width=width * OVERSAMPLING)


def _dot(draw: ImageDraw.ImageDraw, point: tuple[float, float], radius: float, colour: str) -> None:
    x, y = point
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=RIM)


def _fill_pinholes(raster: NDArray[np.uint8], filled: NDArray[np.bool_]) -> None:
    """Give empty cells between measured ones a neighbour's colour, in place, two cells far."""
    for _ in range(2):
        around = np.zeros(filled.shape, dtype=int)
        colours = np.zeros_like(raster)
        for axis in (0, 1):
            for step in (1, -1):
                neighbour = np.roll(filled, step, axis)
                around += neighbour
                colours[neighbour] = np.roll(raster, step, axis)[neighbour]
        holes = ~filled & (around >= 2)
        raster[holes] = colours[holes]
        filled |= holes


def _below_ceiling(
    points_N3: NDArray[np.float64], colours_N3: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the points below the ceiling and their colours; one point where there is none."""
    if not len(points_N3):
        return np.zeros((1, 3)), np.array([EMPTY], dtype=np.uint8)
    low = points_N3[:, 2] < np.percentile(points_N3[:, 2], 0.5) + CEILING
    return points_N3[low], colours_N3[low]
