"""What a capture's poses are, by whether its frames see one surface."""

from dataclasses import replace

import numpy as np
import pytest

from fixtures.captures import room_capture, write_open3d
from fixtures.rgbd_folders import rigid
from threedrs.scannet.rgbd_frames import RgbdFrames
from threedrs.scenes.capture import settle_poses

ROOM = room_capture(10)
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
EVERY = np.arange(10)


def settled(folder, poses, posed=EVERY):
    frames = RgbdFrames(write_open3d(ROOM, folder))
    frames.poses = poses
    return settle_poses(frames, posed)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (ROOM.poses, None),
        (np.linalg.inv(ROOM.poses), "poses: world to camera, as"),
        (ROOM.poses @ OPENGL, "poses: camera to world with OpenGL's axes, as"),
        (np.linalg.inv(ROOM.poses @ OPENGL), "poses: world to camera with OpenGL's axes, as"),
    ],
)
def test_each_convention_is_found_and_converted(tmp_path, written, said):
    poses, facts = settled(tmp_path, written)
    assert np.allclose(poses, ROOM.poses, atol=1e-9)
    if said is None:
        assert facts == []
    else:
        assert facts[0].startswith(said)
        assert "they were converted" in facts[0]


def test_poses_that_fit_no_surface_stay(tmp_path):
    mixed = np.stack([rigid(seed) for seed in EVERY])
    assert settled(tmp_path, mixed) == (pytest.approx(mixed), [])


def test_frames_without_pose_do_not_count_and_stay(tmp_path):
    lost = np.linalg.inv(ROOM.poses)
    lost[4] = -np.inf
    poses, facts = settled(tmp_path, lost, np.delete(EVERY, 4))
    assert "world to camera" in facts[0]
    assert np.allclose(np.delete(poses, 4, axis=0), np.delete(ROOM.poses, 4, axis=0))
    assert not np.isfinite(poses[4]).all()


def test_nothing_is_said_of_frames_that_never_turn_or_of_one(tmp_path):
    still = replace(
        ROOM,
        images=ROOM.images[[0] * 10],
        depths=ROOM.depths[[0] * 10],
        poses=ROOM.poses[[0] * 10],
    )
    frames = RgbdFrames(write_open3d(still, tmp_path / "still"))
    assert settle_poses(frames, EVERY)[1] == []
    assert settle_poses(frames, EVERY[:1])[1] == []
