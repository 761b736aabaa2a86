"""Frames by maximum voxel coverage: few frames that together see most of the scene.

The mesh's vertices fall into voxels of 0.1 m. A frame covers the voxels of the mesh that its depth
pixels fall in. Greedily, the frame that adds most uncovered voxels is taken (ties: the earliest),
until there are V frames (``coverage``), or also until 90 or 95 % of what all frames together cover
is covered (``coverage90``, ``coverage95``: V differs from scene to scene). Once no frame adds any,
each further one is the one that is farthest in time from those taken.

Cost: some 5 ms a frame of 640x480 and its decoding; one depth image at a time, and a byte a frame
and voxel (150 frames x 20,000 voxels: 3 MB). The greedy itself looks at each such byte once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from threedrs.errors import DataError

VOXEL = 0.1
"""Edge of a voxel, metres."""
FEWEST = 32
"""Every second candidate is looked at, unless that leaves fewer than this."""
PERCENT = {"coverage": None, "coverage90": 90, "coverage95": 95}
"""Strategy -> the share of the coverable voxels at which it stops; None: at V frames."""
# The voxels of three axes make one integer below 2**53, which float64 holds exactly.
_MOST_VOXELS_AN_AXIS = 2**17
_STRIP = 64  # rows of a depth image worked on at a time, so that they stay in the processor's cache


class MeshVoxels:
    """The voxels of a scene's mesh, and which of them a depth image falls in.

    A voxel is a world coordinate divided by 0.1 m and rounded to the nearest integer (halves
    to the even one). ``len()`` is their number M. They are ordered by x, then y, then z.

    Args:
        vertices_P3: (P,3) f64 axis-aligned world coordinates, metres, finite.

    Raises:
        DataError: there is no vertex, or the mesh is kilometres wide.
    """

    def __init__(self, vertices_P3: NDArray[np.float64], where: str) -> None:
        if not len(vertices_P3):
            raise DataError(
                f"{where}: holds no point, so no frame sees any; copy the file again, or set "
                "frames.strategy: uniform"
            )
        voxels_P3 = np.rint(vertices_P3 / VOXEL)
        # Counted from one below the mesh's lowest voxel: the first and last of an axis are outside.
        self._origin = voxels_P3.min(axis=0) - 1
        self._sizes = voxels_P3.max(axis=0) - self._origin + 2
        if self._sizes.max() > _MOST_VOXELS_AN_AXIS:
            raise DataError(
                f"{where}: the mesh is {self._sizes.max() * VOXEL / 1000:.1f} km wide; "
                "its unit must be metres"
            )
        x_P, y_P, z_P = (voxels_P3 - self._origin).T
        keys_P = (x_P * self._sizes[1] + y_P) * self._sizes[2] + z_P
        self._keys_M = np.unique(keys_P.astype(np.int64))

    def __len__(self) -> int:
        return len(self._keys_M)

    def seen(
        self,
        depth_HW: NDArray[np.uint16],
        intrinsic: NDArray[np.float64],
        pose: NDArray[np.float64],
    ) -> NDArray[np.intp]:
        """Return which of the M voxels the pixels of a depth image fall in, ascending.

        Args:
            depth_HW: (H,W) mm; 0, no measurement, falls nowhere.
            intrinsic: (4,4) or (3,3), of the depth image, pixels.
            pose: (4,4) camera to axis-aligned world, metres.
        """
        height, width = depth_HW.shape
        x_W = (np.arange(width) - intrinsic[0, 2]) / intrinsic[0, 0]
        y_H1 = ((np.arange(height) - intrinsic[1, 2]) / intrinsic[1, 1])[:, None]
        strips = [
            self._keys_of_strip(
                depth_HW[first : first + _STRIP], x_W, y_H1[first : first + _STRIP], pose
            )
            for first in range(0, height, _STRIP)
        ]
        found = _without_runs(np.sort(np.concatenate(strips).astype(np.int64)))
        places = np.searchsorted(self._keys_M, found)
        places[places == len(self._keys_M)] = 0
        return places[self._keys_M[places] == found]

    def _keys_of_strip(
        self,
        depth_SW: NDArray[np.uint16],
        x_W: NDArray[np.float64],
        y_S1: NDArray[np.float64],
        pose: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return one integer a voxel for the measured pixels of a few rows, without runs.

        A pixel's ray has the camera coordinates (x, y, 1). Its point is depth times the ray.
        """
        z_SW = depth_SW / 1000.0
        keys_SW = np.zeros_like(z_SW)
        voxel_SW = np.empty_like(z_SW)
        for axis in range(3):
            # The ray's world direction is a sum over its column and its row.
            row_S1 = pose[axis, 1] * y_S1 + pose[axis, 2]
            np.add(pose[axis, 0] * x_W, row_S1, out=voxel_SW)
            voxel_SW *= z_SW
            voxel_SW += pose[axis, 3]
            voxel_SW /= VOXEL
            np.rint(voxel_SW, out=voxel_SW)
            voxel_SW -= self._origin[axis]
            np.clip(voxel_SW, 0, self._sizes[axis] - 1, out=voxel_SW)
            keys_SW *= self._sizes[axis]
            keys_SW += voxel_SW
        return _without_runs(keys_SW[depth_SW > 0])


def _without_runs(values: NDArray) -> NDArray:
    """Return a vector with equal neighbours merged; neighbouring pixels mostly share a voxel."""
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The frames that a coverage strategy chose."""

    indices: list[int]  # which of the candidates, ascending
    looked_at: int  # candidates that the choice was made from
    covered: int  # voxels that the chosen frames cover
    coverable: int  # voxels that all frames looked at cover together
    voxels: int  # voxels of the mesh (M)


def coverage_indices(
    n: int, strategy: str, count: int | None, voxels: int, seen: Callable[[int], NDArray[np.intp]]
) -> Coverage:
    """Choose among ``n`` candidates by coverage.

    Args:
        count: V, the most frames that are chosen; None: as many as the strategy's share takes.
        seen: ``seen(i)`` returns which of the M voxels candidate i covers; called once for each
            that is looked at.
    """
    looked_at = range(0, n, 2)
    if len(looked_at) < FEWEST:
        looked_at = range(n)
    seen_FM = np.zeros((len(looked_at), voxels), dtype=bool)
    for row, candidate in enumerate(looked_at):
        seen_FM[row, seen(candidate)] = True
    rows, covered = greedy_rows(seen_FM, count, PERCENT[strategy])
    return Coverage(
        indices=sorted(looked_at[row] for row in rows),
        looked_at=len(looked_at),
        covered=covered,
        coverable=int(seen_FM.any(axis=0).sum()),
        voxels=voxels,
    )


def greedy_rows(
    seen_FM: NDArray[np.bool_], count: int | None, percent: int | None
) -> tuple[list[int], int]:
    """Return rows in the order in which greedy coverage takes them, and the voxels they cover.

    Each step takes the row that adds most uncovered voxels, the first of equals, or once none adds
    any the row farthest from those taken.

    Args:
        seen_FM: (F,M) bool, the voxels that each frame covers.
        count: stop at this many rows; None: go by ``percent`` alone.
        percent: stop as soon as this share of the voxels that any row covers is covered; None: go
            by ``count`` alone.
    """
    gain_F = seen_FM.sum(axis=1, dtype=np.int64)
    open_M: NDArray[np.bool_] = np.logical_or.reduce(seen_FM, axis=0)
    coverable, covered = int(open_M.sum()), 0
    rows: list[int] = []
    while len(rows) < len(gain_F):
        if _is_enough(len(rows), covered, coverable, count, percent):
            break
        row = int(gain_F.argmax())
        if rows and not gain_F[row]:
            # The first of equals would be the start of the stream, one image after the other.
            row = _farthest(rows, len(gain_F))
        new_M = np.flatnonzero(seen_FM[row] & open_M)
        open_M[new_M] = False
        gain_F -= seen_FM[:, new_M].sum(axis=1)
        gain_F[row] = -1  # taken: even one that adds nothing comes before it
        covered += len(new_M)
        rows.append(row)
    return rows, covered


def _farthest(rows: Sequence[int], count: int) -> int:
    """Return which of ``count`` rows is farthest from all of ``rows``, the first of equals."""
    return int(np.abs(np.arange(count)[:, None] - np.array(rows)).min(axis=1).argmax())


def prefix_length(
    gains: Sequence[int], coverable: int, count: int | None, percent: int | None
) -> int:
    """Return how many of the frames that greedy coverage took in order are chosen."""
    covered = 0
    for length, gain in enumerate(gains):
        if _is_enough(length, covered, coverable, count, percent):
            return length
        covered += gain
    return len(gains)


def _is_enough(
    rows: int, covered: int, coverable: int, count: int | None, percent: int | None
) -> bool:
    if rows == count:
        return True
    return percent is not None and rows > 0 and 100 * covered >= percent * coverable
