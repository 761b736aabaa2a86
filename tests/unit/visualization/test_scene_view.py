"""What drawing reads of a scene: frames that can be decoded, measured points."""

from dataclasses import replace

import numpy as np
import pytest

from fixtures.drawn_scenes import one_frame as one_frame  # a fixture
from fixtures.drawn_scenes import view as view  # a fixture
from threedrs.errors import DataError


def test_a_broken_frame_is_named(view):
    broken = replace(view, jpegs=[b"no image", b""])
    with pytest.raises(DataError, match="scene0000_00: frame 7 is not a readable image"):
        broken.image(0, 48)


def test_points_are_the_measured_pixels(view):
    depth_VHW = np.zeros_like(view.depth_VHW)
    depth_VHW[1, 8, 4] = 2000
    points_N3, colours_N3 = replace(view, depth_VHW=depth_VHW).points(stride=4)
    assert points_N3.shape == (1, 3)
    assert points_N3[0, 2] == pytest.approx(-2)  # the second frame looks along -z
    assert colours_N3[0].tolist() == view.rgb_VHW3[1, 8, 4].tolist()
