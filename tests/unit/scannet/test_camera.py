"""What can be a camera in a room: poses, intrinsics and depth, by values worked out by hand."""

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.scannet.camera import (
    check_depths,
    check_intrinsic,
    check_poses,
    count_depths,
    is_rigid,
    without_unmeasured,
)

QUARTER = np.array([[0, -1, 0, 1.0], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
LOST = np.full((4, 4), -np.inf)


def scaled(factor: float) -> np.ndarray:
    pose = QUARTER.copy()
    pose[:3, :3] *= factor
    return pose


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_rigid_motions_as_texts_round_them() -> None:
    rounded = np.round(QUARTER @ np.linalg.inv(QUARTER) + 0.004, 2)
    stack = np.stack([QUARTER, rounded, QUARTER.T, scaled(2), scaled(-1), LOST])
    assert is_rigid(stack).tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("pose", "cause"),
    [
        (QUARTER.T, "it is transposed, so write its columns as rows"),
        (scaled(0.5), "its rotation is scaled by 0.5$"),
        (scaled(-3), "its rotation is scaled by 3; it is mirrored"),
        (scaled(-1), r"last row 0 0 0 1\); it is mirrored"),
        (QUARTER @ np.diag([1, 1, -1, 1]), "it is mirrored"),
        (QUARTER + np.eye(4), r"last row 0 0 0 1\)$"),
    ],
)
def test_a_pose_that_is_not_rigid_is_named_with_its_cause(pose: np.ndarray, cause: str) -> None:
    poses = np.stack([QUARTER, LOST, np.zeros((4, 4)), pose])
    with pytest.raises(DataError, match=f"^frame 30: .*not a rigid camera-to-world pose.*{cause}"):
        check_poses(poses, lambda index: f"frame {10 * index}")
    check_poses(poses[:3], str)


def test_translations_in_millimetres() -> None:
    poses = np.stack([QUARTER, QUARTER])
    poses[1, 0, 3] = 1001.5
    with pytest.raises(DataError, match=r"^1: the poses lie 1000 m apart.*divide .* by 1000"):
        check_poses(poses, str)
    poses[1, 0, 3] = 1000.5
    check_poses(poses, str)
    check_poses(poses[:0], str)


def test_a_lost_frame_at_the_identity_of_a_capture_in_geographic_coordinates() -> None:
    poses = np.tile(QUARTER, (100, 1, 1))
    poses[:, :3, 3] += (500_000, 5_800_000, 40)  # metres east and north, as of UTM
    poses[:, 0, 3] += np.linspace(0, 3, 100)
    assert check_poses(poses, str) == []
    poses[7] = np.eye(4)
    (note,) = check_poses(poses, lambda index: f"frame {index}")
    assert note.startswith("frame 7: the pose lies over 1000 m from the others, the first of 1;")
    # The same room in millimetres: its walk is 3000 long, and its frames are no outliers.
    poses[:, :3, 3] *= 1000
    with pytest.raises(DataError, match="divide the translations by 1000"):
        check_poses(poses, str)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((577.6, 578.7, 318.9, 242.7), None),
        ((577.6, 578.7, 300.0, 200.0), None),
        ((500, 500, 500, 200), None),  # a crop moves the principal point along one side
        ((1169.6, 1167.1, 646.3, 489.9), "about 1293x980 .* is 57"),
        ((288.8, 289.35, 159.5, 119.5), "images of about 319x239 pixels, these have 640x480"),
        ((578, 578, 240, 320), "about 480x640 .*exchange fx with fy and cx with cy"),
        ((577, 577, 641, 100), "principal point 641,100 is not inside the images of 640x480"),
        ((577, 577, -1, 240), "principal point -1,240 is not inside"),
        ((5.77, 5.77, 320, 240), "field of view .* would be 178 by 177 degrees"),
        ((57700, 57700, 320, 240), "field of view .* would be 1 by 0 degrees"),
        ((0, 577, 320, 240), "focal lengths must be positive"),
        ((np.nan, 577, 320, 240), "all values finite"),
    ],
)
def test_intrinsics_of_a_640x480_image(values: tuple[float, ...], message: str | None) -> None:
    matrix = pinhole(*values)
    if message is None:
        assert check_intrinsic(matrix, (640, 480), "it") == []
    else:
        with pytest.raises(DataError, match=f"^it: .*{message}"):
            check_intrinsic(matrix, (640, 480), "it")


@pytest.mark.parametrize(
    ("size", "values"),
    [
        # ScanNet's depth camera, 640x480, without 148 columns left and 111 rows above.
        ((492, 369), (577.6, 578.7, 172, 129)),
        # The same without them on the other side: 320 / 246 = 1.3, and 46 degrees.
        ((492, 369), (577.6, 578.7, 320, 240)),
        ((640, 480), (577.6, 578.7, 224, 168)),
        ((640, 480), (1169.6, 1167.1, 224, 168)),  # of a narrow view no size makes a usual one
    ],
)
def test_a_crop_to_a_corner_is_noted(size: tuple[int, int], values: tuple[float, ...]) -> None:
    (note,) = check_intrinsic(pinhole(*values), size, "it")
    assert note.startswith("it: is that of a crop, or of images of about ")
    assert "if they were resized, scaled to them it is " in note


def test_the_intrinsic_that_fits_is_the_one_that_is_named() -> None:
    with pytest.raises(DataError, match=r"give --intrinsic (.*)$") as caught:
        check_intrinsic(pinhole(1200, 1100, 648, 486), (640, 480), "it", "give --intrinsic")
    fitting = [*map(float, str(caught.value).rpartition(" ")[2].split(","))]
    np.testing.assert_allclose(fitting[2:], [320, 240], rtol=1e-5)
    # 648 / 320 = 486 / 240 = 2.025.
    np.testing.assert_allclose(fitting[:2], [1200 / 2.025, 1100 / 2.025], rtol=1e-5)
    check_intrinsic(pinhole(*fitting), (640, 480), "it")


def test_only_65535_becomes_0() -> None:
    depth = np.array([[0, 1], [65534, 65535]], dtype=np.uint16)
    found = without_unmeasured(depth)
    assert found.dtype == np.uint16
    assert found.tolist() == [[0, 1], [65534, 0]]


def depths(*values: int) -> np.ndarray:
    return count_depths(np.array(values, dtype=np.uint16))


@pytest.mark.parametrize(
    ("values", "scale", "message"),
    [
        ((0, 1500, 2000, 65535, 65535), 1000, None),
        ((7500, 8000, 8200), 5000, None),
        ((0, 65535), 1000, "no pixel has a depth"),
        ((13000, 14000, 15000), 1000, r"median depth is 14 m .*5000 \(TUM: 2.8 m\)"),
        ((1500, 2000, 3000), 1, r"median depth is 2e\+03 m .*1000 \(millimetres: 2 m\)"),
        ((15, 20, 30), 1000, "median depth is 0.02 m at 1000 units a metre, which no room has"),
        ((2000, 2100, 2200, 32767), 1000, "value 32767 stands in 25.0% .* set them to 0"),
        ((2000, 2100, 2200, 10000), 1000, "value 10000 stands in"),
        ((2000, 2100, 7000, 10000), 1000, None),  # something else lies as far away
    ],
)
def test_depths_of_a_room(values: tuple[int, ...], scale: float, message: str | None) -> None:
    if message is None:
        assert check_depths(depths(*values), scale, "it") == []
    else:
        with pytest.raises(DataError, match=f"^it: .*{message}"):
            check_depths(depths(*values), scale, "it")


def test_an_unusual_room_is_noted() -> None:
    (note,) = check_depths(depths(7000, 7500, 8000), 1000, "it", "give --depth-scale")
    assert note.startswith("the median depth is 7.5 m at 1000 units a metre, unusual for a room")
    assert "give --depth-scale 4000 (Matterport3D: 1.9 m) or 5000 (TUM: 1.5 m)" in note
