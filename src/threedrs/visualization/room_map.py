"""A scene from above, with boxes and cameras.

The frames' depth measurements become world points. What lies above head height is excluded, and of
the points that fall on one pixel the highest shows. Costs a few tenths of a second for 32 frames.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_closing, distance_transform_edt

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


def draw_from_above(
    view: SceneView, boxes: Sequence[DrawnBox], frames: Sequence[int], *, crowded: bool = False
) -> Image.Image:
    """Return the top view with the boxes' outlines and the cameras; those of ``frames`` stand out.

    North is the world's y axis, right its x axis. ``crowded``: lines are thin and labels small, for
    all boxes of a scene; a box without a label gets none.
    """
    points_N3, colours_N3 = view.points(STRIDE)
    if not len(points_N3):  # one point, where nothing was measured
        points_N3, colours_N3 = np.zeros((1, 3)), np.array([EMPTY], dtype=np.uint8)
    low_N = points_N3[:, 2] < np.percentile(points_N3[:, 2], 0.5) + CEILING
    points_N3, colours_N3 = points_N3[low_N], colours_N3[low_N]
    cameras_V2 = view.poses_V44[:, :2, 3]
    # All but stray points, and all cameras.
    edges = np.percentile(points_N3[:, :2], (0.5, 99.5), axis=0)
    low = np.minimum(edges[0], cameras_V2.min(axis=0)) - MARGIN
    high = np.maximum(edges[1], cameras_V2.max(axis=0)) + MARGIN
    scale = SIDE * OVERSAMPLING / float((high - low).max())
    width, height = (int(side) for side in np.round((high - low) * scale))

    def pixel(point: NDArray[np.floating]) -> tuple[float, float]:
        x, y = (point[:2] - low) * scale
        return float(x), height - float(y)

    image = _raster(points_N3, colours_N3, low, high, CELL / scale)
    image = image.resize((width, height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for place in cameras_V2:
        draw.circle(pixel(place), 2 * OVERSAMPLING, fill=CAMERA, outline=RIM)
    for frame in frames:
        place, ahead = cameras_V2[frame], view.poses_V44[frame, :2, 2]
        draw.circle(pixel(place), 4 * OVERSAMPLING, fill=CAMERA, outline=RIM)
        reach = [pixel(place), pixel(place + 0.6 * ahead)]
        draw.line(reach, fill=CAMERA, width=2 * OVERSAMPLING)
    for rank, drawn in reversed(list(enumerate(boxes))):
        first = pixel(drawn.box[:3] - drawn.box[3:] / 2)
        second = pixel(drawn.box[:3] + drawn.box[3:] / 2)
        outline = (first[0], second[1], second[0], first[1])
        wide = 1 if crowded else 2 + 2 * rank_width(rank)
        draw.rectangle(outline, outline=RIM, width=(wide + 2) * OVERSAMPLING)
        draw.rectangle(outline, outline=drawn.colour, width=wide * OVERSAMPLING)
    labels = [
        (pixel(drawn.box[:3] + drawn.box[3:] / 2 * np.array([0, 1, 1])), drawn)
        for drawn in boxes
        if drawn.label
    ]
    draw_labels(draw, labels, image.size, LABEL_SIZE // 2 if crowded else LABEL_SIZE)
    left, bottom = 8 * OVERSAMPLING, height - 10 * OVERSAMPLING
    for colour, thick in ((RIM, 5), ("#ffffff", 3)):
        metre = [(left, bottom), (left + scale, bottom)]
        draw.line(metre, fill=colour, width=thick * OVERSAMPLING)
    font = ImageFont.load_default(LABEL_SIZE * OVERSAMPLING)
    above = (left, bottom - 5 * OVERSAMPLING)
    draw.text(above, "1 m", fill="#ffffff", stroke_width=2, stroke_fill=RIM, anchor="ls", font=font)
    return image.resize((width // OVERSAMPLING, height // OVERSAMPLING))


def _raster(
    points_N3: NDArray[np.float64],
    colours_N3: NDArray[np.uint8],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    cell: float,
) -> Image.Image:
    """Return an image of the highest points, a pixel a cell of ``cell`` metres, north up."""
    columns, rows = np.ceil((high - low) / cell).astype(int)
    raster = np.full((rows, columns, 3), EMPTY, dtype=np.uint8)
    filled = np.zeros((rows, columns), dtype=bool)
    # Of the points that fall into a cell the last one stays, which is the highest.
    order = np.argsort(points_N3[:, 2], kind="stable")
    cells = ((points_N3[order, :2] - low) / cell).astype(int)
    inside = ((cells >= 0) & (cells < (columns, rows))).all(axis=1)
    place = rows - 1 - cells[inside, 1], cells[inside, 0]
    raster[place], filled[place] = colours_N3[order][inside], True
    # Empty cells between measured ones, up to two cells far, get the nearest colour.
    holes = binary_closing(filled, iterations=2) & ~filled
    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    raster[holes] = raster[tuple(nearest[:, holes])]
    return Image.fromarray(raster)
