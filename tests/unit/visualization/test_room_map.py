"""The room from above: boxes and cameras in their places."""

from dataclasses import replace

import numpy as np
import pytest

from fixtures.drawn_scenes import GREEN, RED, drawn, pixels_of
from fixtures.drawn_scenes import one_frame as one_frame  # a fixture
from fixtures.drawn_scenes import view as view  # a fixture
from fixtures.report_files import OTHER, TRUE
from threedrs.visualization.room_map import EMPTY, _raster, draw_from_above


def test_the_room_from_above_has_boxes_in_their_places(view):
    # The wall spans 640 px / 500 * 3 m = 3.84 m in x; x grows to the right, y upwards.
    image = draw_from_above(view, [drawn(TRUE), drawn(OTHER, RED, "3drs")], [0])
    true, other = pixels_of(image, GREEN), pixels_of(image, RED)
    pixels_a_metre = image.width / (3.84 + 2 * 0.3)
    assert np.ptp(true[:, 0]) == pytest.approx(0.6 * pixels_a_metre, abs=6)
    assert true[:, 0].mean() - other[:, 0].mean() == pytest.approx(0.9 * pixels_a_metre, abs=12)
    assert true[:, 1].max() < other[:, 1].max()


def test_a_room_without_depth_is_empty_ground(view):
    blind = replace(view, depth_VHW=np.zeros_like(view.depth_VHW))
    image = draw_from_above(blind, [drawn(TRUE)], [0])
    assert image.width > 0


def test_empty_cells_between_points_get_a_neighbours_colour():
    points = np.array([[x, y, 0.0] for x in range(9) for y in range(9) if (x, y) != (4, 4)])
    colours = np.full((len(points), 3), 9, np.uint8)
    image = _raster(points, colours, np.zeros(2), np.full(2, 20.0), 1.0)
    # North is up, so y = 4 of 20 rows is the 16th; nothing grows beyond the points.
    assert image.getpixel((4, 15)) == (9, 9, 9)
    assert image.getpixel((12, 15)) == EMPTY
