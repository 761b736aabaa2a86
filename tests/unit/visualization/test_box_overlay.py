"""Projection by hand, the choice of frames, and boxes that really show."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fixtures.drawn_scenes import GREEN, RED, drawn, pixels_of
from fixtures.drawn_scenes import one_frame as one_frame  # a fixture
from fixtures.drawn_scenes import view as view  # a fixture
from fixtures.report_files import INTRINSIC, TRUE
from threedrs.visualization.box_overlay import (
    FRAME_WIDTH,
    best_frame,
    clip,
    corners,
    draw_boxes,
    draw_labels,
    project,
    seen_shares,
    to_camera,
)


def test_corners_and_camera_by_hand():
    found = corners(np.array([1.0, 2, 3, 2, 4, 6]))
    assert found[0].tolist() == [0, 0, 0]
    assert found[1].tolist() == [2, 0, 0]
    assert found[7].tolist() == [2, 4, 6]
    # A camera at (1, 0, 0) that looks along the world's x axis: its z is x, its x is -y.
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, 3] = [1, 0, 0]
    assert to_camera(np.array([3.0, 0.5, 0.25]), pose) == pytest.approx([-0.5, -0.25, 2])


def test_projection_by_hand():
    # u = 500 * 0.4 / 2 + 320, v = 500 * -0.2 / 2 + 240
    assert project(np.array([0.4, -0.2, 2.0]), INTRINSIC) == pytest.approx([420, 190])


def test_edges_are_cut_in_front_of_the_camera():
    behind, ahead = np.array([0.0, 0, -1]), np.array([1.0, 0, 1])
    assert clip(behind, behind) is None
    near, far = clip(behind, ahead)
    assert near == pytest.approx([0.525, 0, 0.05])
    assert far == pytest.approx(ahead)
    assert clip(ahead, behind)[1] == pytest.approx([0.525, 0, 0.05])


def test_a_drawn_box_shows_where_it_projects(view):
    image = draw_boxes(view, 0, [drawn(TRUE)])
    assert image.size == (FRAME_WIDTH, FRAME_WIDTH * 3 // 4)
    found = pixels_of(image, GREEN)
    assert len(found) > 300
    # Its nearest face, 1.7 m away, spans u = 500 * (-0.1 .. 0.5) / 1.7 + 320, v likewise + 240.
    scale = FRAME_WIDTH / 640
    left, right = (500 * x / 1.7 + 320 for x in (-0.1, 0.5))
    top, bottom = (500 * y / 1.7 + 240 for y in (-0.2, 0.4))
    assert found[:, 1].min() <= top * scale + 3  # the label stands above it
    found = found[found[:, 1] > top * scale + 3]
    assert found[:, 0].min() == pytest.approx(left * scale, abs=3)
    assert found[:, 0].max() == pytest.approx(right * scale, abs=3)
    assert found[:, 1].max() == pytest.approx(bottom * scale, abs=3)


def test_a_box_behind_another_in_the_same_place_still_shows(view):
    image = draw_boxes(view, 0, [drawn(TRUE), drawn(TRUE, RED, "3drs")])
    assert len(pixels_of(image, GREEN)) > 300
    assert len(pixels_of(image, RED)) > 100


def test_a_box_behind_the_camera_is_not_drawn(view):
    image = draw_boxes(view, 0, [drawn([0, 0, -2, 0.5, 0.5, 0.5])])
    assert len(pixels_of(image, GREEN)) == 0


def test_frames_are_chosen_by_what_they_show(view):
    behind = drawn([0, 0, -2, 0.5, 0.5, 0.5], RED, "3drs")
    beyond = drawn([9, 9, 2, 0.5, 0.5, 0.5], RED, "baseline")
    hidden = drawn([0, 0, 5, 0.5, 0.5, 0.5], RED, "hidden")  # the wall is at 3 m
    assert seen_shares(view, TRUE).tolist() == [1, 0]
    assert seen_shares(view, hidden.box).tolist() == [0, 0]
    assert best_frame(view, [drawn(TRUE), behind]) == 0
    assert best_frame(view, [behind, drawn(TRUE)]) == 1
    assert best_frame(view, [beyond, behind]) == 1
    # Without a box in view it is the middle one.
    assert best_frame(view, [beyond, hidden]) == 1


def test_labels_in_one_place_stand_below_each_other():
    image = Image.new("RGB", (200, 300), "white")
    labels = [((100.0, 60.0), drawn(TRUE, colour, "1 chair")) for colour in (GREEN, RED, GREEN)]
    draw_labels(ImageDraw.Draw(image), labels, image.size)
    green, red = pixels_of(image, GREEN)[:, 1], pixels_of(image, RED)[:, 1]
    assert green.min() < red.min() < red.max() < green.max()
    assert not ((green >= red.min()) & (green <= red.max())).any()
