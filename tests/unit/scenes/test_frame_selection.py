import numpy as np
import pytest

from threedrs.scannet.camera import has_valid_pose
from threedrs.scenes.frame_selection import Candidates, candidate_frames, uniform_indices


def make_poses(count: int) -> np.ndarray:
    return np.tile(np.eye(4), (count, 1, 1))


def by_stride(poses: np.ndarray, stride: int) -> Candidates:
    """The candidates where all frames of the stream are there."""
    return candidate_frames(poses, range(len(poses)), stride=stride)


def test_every_stride_th_frame_without_invalid_poses() -> None:
    poses = make_poses(45)
    poses[10, 0, 3] = -np.inf
    poses[11] = np.nan  # not on the stride: plays no part
    poses[30] = 0
    found = by_stride(poses, 10)
    assert found.frames == (0, 20, 40)
    assert found.dropped == ((10, "the pose is not finite"), (30, "the pose is all zero"))


def test_stride_edges() -> None:
    assert by_stride(make_poses(21), 10).frames == (0, 10, 20)
    assert by_stride(make_poses(20), 10).frames == (0, 10)
    assert by_stride(make_poses(3), 1).frames == (0, 1, 2)
    assert by_stride(make_poses(0), 10).frames == ()


def test_frames_numbered_by_the_stream() -> None:
    poses = make_poses(5)
    poses[2] = -np.inf
    found = candidate_frames(poses, [0, 5, 10, 15, 20], stride=10)
    assert (found.frames, found.places) == ((0, 20), (0, 4))
    assert [frame for frame, _ in found.dropped] == [10]


def test_listed_frames_in_any_order() -> None:
    poses = make_poses(5)
    poses[1] = 0
    found = candidate_frames(poses, np.array([0, 5, 10, 15, 20]), listed=[15, 7, 5, 0])
    assert (found.frames, found.places) == ((0, 15), (0, 3))
    assert found.dropped == (
        (5, "the pose is all zero"),
        (7, "listed, but not in the scan"),
    )
    assert candidate_frames(poses, [0, 5, 10, 15, 20], listed=[]).frames == ()


def test_poses_that_mark_frames_which_were_not_localised() -> None:
    poses = make_poses(4)
    poses[1, 0, 3], poses[2, 1, 1], poses[3] = -np.inf, np.nan, 0
    assert has_valid_pose(poses).tolist() == [True, False, False, False]


def test_uniform_by_hand() -> None:
    assert uniform_indices(10, 4) == [0, 3, 6, 9]
    assert uniform_indices(10, 3) == [0, 4, 9]  # 4.5 is truncated
    assert uniform_indices(7, 1) == [0]
    assert uniform_indices(3, 5) == [0, 0, 1, 1, 2]  # fewer candidates than asked for: repeats
    assert uniform_indices(1, 3) == [0, 0, 0]


@pytest.mark.parametrize(("n", "count"), [(300, 32), (32, 32), (33, 32), (5, 32), (1000, 7)])
def test_uniform_properties(n: int, count: int) -> None:
    found = uniform_indices(n, count)
    assert len(found) == count
    assert (found[0], found[-1]) == (0, n - 1)
    assert all(type(index) is int for index in found)
    for position, index in enumerate(found):
        assert index <= position * (n - 1) / (count - 1) + 1e-9 < index + 1 + 1e-6
    assert found == sorted(found)
