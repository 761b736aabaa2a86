"""Whether a capture's poses are what they are taken for: neighbouring frames must see one surface.

Tools write world-to-camera matrices, or cameras that look along -z with y up (OpenGL), where camera
to world with y down and z ahead is meant, and no matrix tells which it is. The depth images do: a
pixel's point, seen from the next frame, lies at the depth that was measured there. Each convention
is tried on a few pairs of frames. Costs some 30 ms a pair.
"""

import numpy as np
from numpy.typing import NDArray

from threedrs.scannet.frames import Frames
from threedrs.scannet.geometry import unproject

Poses = NDArray[np.float64]

_AXES = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's camera axes in ours
_TURN = 15.0  # degrees between the frames of a pair, which then still overlap
_PAIRS, _COLUMNS = 12, 80  # pairs of frames, and about as many columns of the first are looked at
_NEAR = 0.05  # of the measured depth: as far off as a sensor may be, and a surface seen askew
_FEWEST = 500  # pixels that both frames see; of fewer nothing is said
# Shares of agreeing pixels: from the first a convention is right, below the second something is
# wrong. Occlusion and moved things keep a right one from 1, and chance a wrong one from 0.
_RIGHT, _WRONG = 0.6, 0.4
_MARGIN = 0.3  # by which another convention must be better


def settle_poses(frames: Frames, posed: NDArray[np.intp]) -> tuple[Poses, list[str]]:
    """Return the poses as camera to world, (N,4,4) with y down and z ahead, and what was found.

    Args:
        posed: (F,) places of the frames that have a pose.
    """
    conventions = {
        "camera to world": frames.poses,
        "world to camera": _inverted(frames.poses, posed),
    }
    for name, poses in [*conventions.items()]:
        with np.errstate(invalid="ignore"):  # poses that are not finite stay so
            conventions[f"{name} with OpenGL's axes"] = poses @ _AXES
    shares = _shares(frames, posed, conventions)
    if not shares:
        return frames.poses, []
    given, best = "camera to world", max(shares, key=lambda name: shares[name])
    if shares[best] >= _RIGHT and shares[best] > shares[given] + _MARGIN:
        return conventions[best], [
            f"poses: {best}, as frames then agree on the depth of {shares[best]:.0%} of the "
            f"pixels, and of {shares[given]:.0%} as {given}; they were converted"
        ]
    if shares[given] < _WRONG:
        return frames.poses, [
            f"warning: frames agree on the depth of only {shares[given]:.0%} of the pixels that "
            "two of them see; check poses, depth units and intrinsic"
        ]
    return frames.poses, []


def _inverted(poses_N44: Poses, posed: NDArray[np.intp]) -> Poses:
    inverted = poses_N44.copy()
    inverted[posed] = np.linalg.inv(poses_N44[posed])
    return inverted


def _shares(
    frames: Frames, posed: NDArray[np.intp], conventions: dict[str, Poses]
) -> dict[str, float]:
    """Return the share of the pixels whose depth fits the next frame, by convention."""
    agreeing, seen = dict.fromkeys(conventions, 0), dict.fromkeys(conventions, 0)
    for first, second in _pairs(frames.poses[posed], posed):
        depth_HW = frames.depth_millimetres(first)
        other_HW = frames.depth_millimetres(second)
        for name, poses in conventions.items():
            relative = np.linalg.inv(poses[second]) @ poses[first]
            errors = _depth_errors(depth_HW, other_HW, relative, frames.header.intrinsic_depth)
            agreeing[name] += int((errors < _NEAR).sum())
            seen[name] += len(errors)
    most = max(seen.values())
    if most < _FEWEST:
        return {}
    # A convention under which frames hardly overlap has no chance to be wrong, nor right.
    return {name: agreeing[name] / max(seen[name], most // 3, 1) for name in conventions}


def _pairs(poses_F44: Poses, posed: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return the places of up to 12 frames, each with a later one that looks elsewhere.

    How far a camera turned is the same in every convention. Without a turn all agree.
    """
    found = []
    for first in np.unique(np.linspace(0, len(posed) - 2, _PAIRS).astype(int)).clip(0).tolist():
        later_L33 = poses_F44[first + 1 :, :3, :3]
        if not len(later_L33):
            continue
        traces_L = np.einsum("lij,ij->l", later_L33, poses_F44[first, :3, :3])
        angles_L = np.degrees(np.arccos(np.clip((traces_L - 1) / 2, -1, 1)))
        enough = np.flatnonzero(angles_L >= _TURN)
        second = int(enough[0]) if len(enough) else int(angles_L.argmax())
        found.append((int(posed[first]), int(posed[first + 1 + second])))
    return found


def _depth_errors(
    depth_HW: NDArray[np.uint16],
    other_HW: NDArray[np.uint16],
    relative: Poses,
    intrinsic: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return how far off, as a share of it, the measured depth is where each pixel's point falls.

    Args:
        depth_HW: (H,W) mm.
        other_HW: (H,W) mm, of the other frame.
        relative: (4,4) the frame's camera to the other's.
        intrinsic: (4,4) of both.
    """
    height, width = depth_HW.shape
    step = max(1, width // _COLUMNS)
    few = depth_HW[::step, ::step]
    points = unproject(
        few,
        intrinsic,
        relative,
        columns_W=np.arange(0, width, step),
        rows_H=np.arange(0, height, step),
    )[few > 0]
    x, y, z = points[points[:, 2] > 0.1].T
    columns = np.rint(x / z * intrinsic[0, 0] + intrinsic[0, 2]).astype(int)
    rows = np.rint(y / z * intrinsic[1, 1] + intrinsic[1, 2]).astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    measured = other_HW[rows[inside], columns[inside]] / 1000.0
    return np.abs(measured - z[inside])[measured > 0] / measured[measured > 0]
