"""Candidate frames of a scan: every stride-th frame of the stream that has a valid pose.

One list a scene, stored once and used by student and teacher alike, so that frame i means the same
image everywhere.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class DroppedFrame:
    """A frame of the stream that is no candidate, and why."""

    frame: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The frames to choose from, by index in the stream, and those dropped for their pose."""

    frames: tuple[int, ...]
    dropped: tuple[DroppedFrame, ...]


def candidate_frames(poses_F44: np.ndarray, stride: int) -> Candidates:
    """Return every ``stride``-th frame of the stream whose pose is valid.

    Args:
        poses_F44: (F,4,4) camera-to-world pose of each frame of the stream.
        stride: step through the stream, from frame 0.

    Raises:
        ValueError: ``stride`` is below 1.
    """
    if stride < 1:
        raise ValueError(f"the stride must be at least 1, not {stride}")
    frames: list[int] = []
    dropped: list[DroppedFrame] = []
    for frame in range(0, len(poses_F44), stride):
        reason = pose_problem(poses_F44[frame])
        if reason is None:
            frames.append(frame)
        else:
            dropped.append(DroppedFrame(frame=frame, reason=reason))
    return Candidates(frames=tuple(frames), dropped=tuple(dropped))


def pose_problem(pose_44: np.ndarray) -> str | None:
    """Return why a (4,4) pose is invalid, or None if it is valid.

    ScanNet marks frames that its tracking lost by ``-inf``; other captures by zeros.
    """
    if not np.isfinite(pose_44).all():
        return "the pose is not finite"
    if not pose_44.any():
        return "the pose is all zero"
    return None
