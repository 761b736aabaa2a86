"""Candidate frames of a scan: every stride-th frame of the stream, or EmbodiedScan's list.

Frames without a valid pose are dropped. One list a scene, stored once and used by student and
teacher alike, so that frame i means the same image everywhere.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class DroppedFrame:
    """A frame of the stream that is no candidate, and why."""

    frame: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The frames to choose from, and those dropped.

    Attributes:
        frames: index in the stream of each candidate, ascending.
        places: where each candidate stands in its reader; in a .sens this is ``frames``.
        dropped: frames that would be candidates but for their pose, or that are not there.
    """

    frames: tuple[int, ...]
    places: tuple[int, ...]
    dropped: tuple[DroppedFrame, ...]


def candidate_frames(
    poses_F44: np.ndarray, stride: int, frame_ids_F: Sequence[int] | np.ndarray | None = None
) -> Candidates:
    """Return every ``stride``-th frame of the stream whose pose is valid.

    Args:
        poses_F44: (F,4,4) camera-to-world pose of each frame of the reader.
        stride: step through the stream, from frame 0.
        frame_ids_F: (F,) index in the stream of each frame of the reader, ascending; None: 0..F-1.

    Raises:
        ValueError: ``stride`` is below 1.
    """
    if stride < 1:
        raise ValueError(f"the stride must be at least 1, not {stride}")
    frame_ids = range(len(poses_F44)) if frame_ids_F is None else frame_ids_F
    return _with_valid_pose(
        poses_F44,
        [(place, int(frame)) for place, frame in enumerate(frame_ids) if frame % stride == 0],
    )


def listed_frames(
    poses_F44: np.ndarray, frame_ids_F: Sequence[int] | np.ndarray, listed: Collection[int]
) -> Candidates:
    """Return the frames of a list that the reader has and whose pose is valid.

    Args:
        poses_F44: (F,4,4) camera-to-world pose of each frame of the reader.
        frame_ids_F: (F,) index in the stream of each frame of the reader, ascending.
        listed: indices in the stream, in any order.
    """
    places = {int(frame): place for place, frame in enumerate(frame_ids_F)}
    found = _with_valid_pose(
        poses_F44, [(places[frame], frame) for frame in sorted(listed) if frame in places]
    )
    missing = tuple(
        DroppedFrame(frame=frame, reason="listed, but not in the scan")
        for frame in sorted(listed)
        if frame not in places
    )
    return Candidates(frames=found.frames, places=found.places, dropped=found.dropped + missing)


def pose_problem(pose_44: np.ndarray) -> str | None:
    """Return why a (4,4) pose is invalid, or None if it is valid.

    ScanNet marks frames that its tracking lost by ``-inf``; other captures by zeros.
    """
    if not np.isfinite(pose_44).all():
        return "the pose is not finite"
    if not pose_44.any():
        return "the pose is all zero"
    return None


def _with_valid_pose(poses_F44: np.ndarray, frames: list[tuple[int, int]]) -> Candidates:
    """Split (place, frame) pairs by whether the pose at ``place`` is valid."""
    kept: list[tuple[int, int]] = []
    dropped: list[DroppedFrame] = []
    for place, frame in frames:
        reason = pose_problem(poses_F44[place])
        if reason is None:
            kept.append((place, frame))
        else:
            dropped.append(DroppedFrame(frame=frame, reason=reason))
    return Candidates(
        frames=tuple(frame for _, frame in kept),
        places=tuple(place for place, _ in kept),
        dropped=tuple(dropped),
    )
