"""The room from above: boxes and cameras in their places."""

from dataclasses import replace

import numpy as np
import pytest

from fixtures.drawn_scenes import GREEN, RED, drawn, pixels_of
from fixtures.drawn_scenes import one_frame as one_frame  # a fixture
from fixtures.drawn_scenes import view as view  # a fixture
from fixtures.report_files import OTHER, TRUE
from threedrs.visualization.room_map import RoomMap


def test_the_room_from_above_has_boxes_in_their_places(view):
    # The wall spans 640 px / 500 * 3 m = 3.84 m in x; x grows to the right, y upwards.
    room = RoomMap(view)
    image = room.with_boxes([drawn(TRUE), drawn(OTHER, RED, "3drs")], [0])
    true, other = pixels_of(image, GREEN), pixels_of(image, RED)
    pixels_a_metre = image.width / (3.84 + 2 * 0.3)
    assert np.ptp(true[:, 0]) == pytest.approx(0.6 * pixels_a_metre, abs=6)
    assert true[:, 0].mean() - other[:, 0].mean() == pytest.approx(0.9 * pixels_a_metre, abs=12)
    assert true[:, 1].max() < other[:, 1].max()
    again = room.with_boxes([], [])
    assert len(pixels_of(again, RED)) == 0


def test_a_room_without_depth_is_empty_ground(view):
    blind = replace(view, depth_VHW=np.zeros_like(view.depth_VHW))
    image = RoomMap(blind).with_boxes([drawn(TRUE)], [0])
    assert image.width > 0
