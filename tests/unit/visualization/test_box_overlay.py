"""Projection by hand, the choice of frames, boxes that really show, and the room from above."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fixtures.report_files import INTRINSIC, OTHER, TRUE, scene_contents
from threedrs.errors import DataError
from threedrs.scenes.store import SceneStore, write_scene_store
from threedrs.visualization.box_overlay import (
    FRAME_WIDTH,
    DrawnBox,
    clip,
    corners,
    draw_boxes,
    frames_that_show,
    project,
    seen_shares,
    to_camera,
)
from threedrs.visualization.scene_plot import BOX_COLOURS, PICTURE_SIZE, RoomMap, scene_picture
from threedrs.visualization.scene_view import SceneView, contact_sheet

GREEN, RED = "#00ff00", "#ff0000"


@pytest.fixture(scope="module")
def one_frame(tmp_path_factory):
    path = tmp_path_factory.mktemp("overlay") / "scene0000_00.zarr"
    write_scene_store(path, scene_contents("scene0000_00"))
    return SceneView.of(SceneStore.open(path))


@pytest.fixture
def view(one_frame):
    """Two frames: one looks along z, the other back along -z."""
    back = np.diag([1.0, -1, -1, 1])
    return replace(
        one_frame,
        frame_ids=[7, 9],
        jpegs=one_frame.jpegs * 2,
        rgb_VHW3=np.repeat(one_frame.rgb_VHW3, 2, axis=0),
        depth_VHW=np.repeat(one_frame.depth_VHW, 2, axis=0),
        poses_V44=np.stack([np.eye(4), back]),
    )


def drawn(box, colour=GREEN, label="true"):
    return DrawnBox(box=np.asarray(box, float), colour=colour, label=label)


def pixels_of(picture, colour):
    """Where the picture is (almost) of the colour, (N, 2) as (u, v)."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    close = (np.abs(np.asarray(picture).astype(int) - wanted) < 60).all(axis=-1)
    return np.argwhere(close)[:, ::-1]


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
    picture = draw_boxes(view, 0, [drawn(TRUE)])
    assert picture.size == (FRAME_WIDTH, FRAME_WIDTH * 3 // 4)
    found = pixels_of(picture, GREEN)
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
    picture = draw_boxes(view, 0, [drawn(TRUE), drawn(TRUE, RED, "3drs")])
    assert len(pixels_of(picture, GREEN)) > 300
    assert len(pixels_of(picture, RED)) > 100


def test_a_box_behind_the_camera_is_not_drawn(view):
    picture = draw_boxes(view, 0, [drawn([0, 0, -2, 0.5, 0.5, 0.5])])
    assert len(pixels_of(picture, GREEN)) == 0


def test_frames_are_chosen_by_what_they_show(view):
    behind = drawn([0, 0, -2, 0.5, 0.5, 0.5], RED, "3drs")
    beyond = drawn([9, 9, 2, 0.5, 0.5, 0.5], RED, "baseline")
    hidden = drawn([0, 0, 5, 0.5, 0.5, 0.5], RED, "hidden")  # the wall is at 3 m
    assert seen_shares(view, TRUE).tolist() == [1, 0]
    assert seen_shares(view, hidden.box).tolist() == [0, 0]
    assert frames_that_show(view, [drawn(TRUE), drawn(OTHER)], 2) == ([0], [])
    assert frames_that_show(view, [drawn(TRUE), behind], 2) == ([0, 1], [])
    assert frames_that_show(view, [drawn(TRUE), behind], 1) == ([0], [])
    assert frames_that_show(view, [behind, beyond], 2) == ([1], [beyond])
    assert frames_that_show(view, [beyond, hidden], 2) == ([1], [beyond, hidden])


def test_frames_without_boxes(view):
    sheet = view.sheet()
    assert sheet.size == (FRAME_WIDTH, FRAME_WIDTH * 3 // 8)


def test_a_broken_frame_is_named(view):
    broken = replace(view, jpegs=[b"no picture", b""])
    with pytest.raises(DataError, match="scene0000_00: frame 7 cannot be decoded"):
        draw_boxes(broken, 0, [])


def test_the_room_from_above_has_boxes_in_their_places(view):
    # The wall spans 640 px / 500 * 3 m = 3.84 m in x; x grows to the right, y upwards.
    room = RoomMap(view)
    picture = room.with_boxes([drawn(TRUE), drawn(OTHER, RED, "3drs")], [0])
    true, other = pixels_of(picture, GREEN), pixels_of(picture, RED)
    pixels_a_metre = picture.width / (3.84 + 2 * 0.3)
    assert np.ptp(true[:, 0]) == pytest.approx(0.6 * pixels_a_metre, abs=6)
    assert true[:, 0].mean() - other[:, 0].mean() == pytest.approx(0.9 * pixels_a_metre, abs=12)
    assert true[:, 1].max() < other[:, 1].max()
    again = room.with_boxes([], [])
    assert len(pixels_of(again, RED)) == 0


def test_a_room_without_depth_is_empty_ground(view):
    blind = replace(view, depth_VHW=np.zeros_like(view.depth_VHW))
    picture = RoomMap(blind).with_boxes([drawn(TRUE)], [0])
    assert picture.width > 0


def test_points_are_the_measured_pixels(view):
    depth_VHW = np.zeros_like(view.depth_VHW)
    depth_VHW[1, 8, 4] = 2000
    points_N3, colours_N3 = replace(view, depth_VHW=depth_VHW).points(stride=4)
    assert points_N3.shape == (1, 3)
    assert points_N3[0, 2] == pytest.approx(-2)  # the second frame looks along -z
    assert colours_N3[0].tolist() == view.rgb_VHW3[1, 8, 4].tolist()


def test_a_contact_sheet_has_rows_gaps_and_captions():
    tiles = [Image.new("RGB", (10, 6), colour) for colour in (GREEN, RED, "#0000ff")]
    sheet = contact_sheet(tiles, columns=2, captions=["a", "b", "c"], gap=4, ground="#808080")
    assert sheet.size == (10 + 4 + 10, 2 * (6 + 14) + 4)
    assert sheet.getpixel((14, 0)) == (255, 0, 0)
    assert sheet.getpixel((0, 24)) == (0, 0, 255)
    assert sheet.getpixel((14, 30)) == (128, 128, 128)


def test_a_scenes_picture_shows_both_box_sets(tmp_path):
    contents = scene_contents("scene0000_00")
    write_scene_store(tmp_path / "scene0000_00.zarr", contents)
    scene_picture(SceneStore.open(tmp_path / "scene0000_00.zarr"), "title", tmp_path / "a.jpg")
    scene_picture(SceneStore.open(tmp_path / "scene0000_00.zarr"), "title", tmp_path / "a.png")
    with Image.open(tmp_path / "a.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", PICTURE_SIZE)
    with Image.open(tmp_path / "a.png") as picture:
        for name, colour in BOX_COLOURS.items():
            drawn_pixels = pixels_of(picture, colour)
            assert bool(len(drawn_pixels)) == bool(len(contents.boxes[name].boxes))
