"""Frames that are turned by quarters: pixels, intrinsic and pose together."""

import io

import numpy as np
import pytest
from PIL import Image

from fixtures.captures import room_capture, write_open3d, write_pose_texts
from threedrs.scannet.geometry import unproject
from threedrs.scannet.rgbd_frames import RgbdFrames
from threedrs.scenes.frame_reader import TurnedFrames

ROOM = room_capture(3)


def points(frames, index):
    return unproject(
        frames.depth_millimetres(index), frames.header.intrinsic_depth, frames.poses[index]
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_every_pixel_keeps_its_point_and_its_colour(tmp_path, turns):
    plain = RgbdFrames(write_open3d(ROOM, tmp_path))
    turned = TurnedFrames(plain, turns)
    assert len(turned) == 3
    expected = np.rot90(points(plain, 1), turns)
    assert np.allclose(points(turned, 1), expected, atol=1e-5)
    assert np.array_equal(turned.color(1), np.rot90(plain.color(1), turns))
    size = (160, 120) if turns == 2 else (120, 160)
    assert turned.header.color_size == turned.header.depth_size == size
    with Image.open(io.BytesIO(turned.color_bytes(1))) as image:
        assert (image.format, image.size) == ("JPEG", size)
    assert turned.depth_bytes(1) == plain.depth_bytes(1)


def test_the_pixel_at_the_left_end_of_the_top_row_goes_to_the_bottom_row(tmp_path):
    plain = RgbdFrames(write_open3d(ROOM, tmp_path))
    turned = TurnedFrames(plain, 1)
    assert turned.depth_millimetres(0)[-1, 0] == plain.depth_millimetres(0)[0, 0]
    # fx = fy = 130, and cx, cy = 80, 60 becomes 60, 159 - 80.
    assert turned.header.intrinsic_depth[:2, :3].tolist() == [[130, 0, 60], [0, 130, 79]]


def test_frames_that_were_not_localised_stay_so(tmp_path):
    folder = write_pose_texts(ROOM, tmp_path)
    np.savetxt(folder / "pose" / "00001.txt", np.full((4, 4), -np.inf))
    turned = TurnedFrames(RgbdFrames(folder), 1)
    assert turned.valid.tolist() == [True, False, True]
    assert np.isneginf(turned.poses[1]).all()
