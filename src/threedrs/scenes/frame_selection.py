"""Which frames of a scan a scene store holds: the scan's frames, the candidates, the V chosen.

Candidates are every stride-th frame of the stream, or EmbodiedScan's list. Frames without a valid
pose are dropped. The strategy chooses V of them, by coverage from the published list where there is
one. One list a scene, stored once and used by student and teacher alike, so that frame i means the
same image everywhere.

`uniform` costs nothing. The coverage strategies read mesh or point cloud and decode the depth of
every second candidate (some 3 s a scene of 300 candidates), and keep the compressed depth of all
that they looked at for a while (150 of 250 kB).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from threedrs.config.schema import Frames as FrameKeys
from threedrs.config.schema import InvalidDepth
from threedrs.errors import DataError
from threedrs.scannet.boxes import aligned_vertices
from threedrs.scannet.camera import check_poses, has_valid_pose
from threedrs.scannet.frames import Frames
from threedrs.scannet.layout import LEAVE_OUT, ScanFiles
from threedrs.scenes.coverage import (
    PERCENT,
    VOXEL,
    Coverage,
    MeshVoxels,
    coverage_indices,
    prefix_length,
)
from threedrs.scenes.published_lists import PublishedLists, SelectedFrames

_SHOWN = 10


class SceneSettings(FrameKeys):
    """What shapes a scene store: the section `frames`, and how pixels without depth count."""

    invalid_depth: InvalidDepth = "reference"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SceneSettings":
        """Return the settings in the config's sections ``frames`` and ``geometry``."""
        return cls(**config["frames"], invalid_depth=config["geometry"]["invalid_depth"])


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The frames to choose from, and those dropped."""

    frames: tuple[int, ...]  # index in the stream of each candidate, ascending
    # Where each candidate stands in its reader; in a .sens this is ``frames``.
    places: tuple[int, ...]
    # (index in the stream, reason) of each frame that would be a candidate but for its pose, or
    # that is not there.
    dropped: tuple[tuple[int, str], ...]


def candidate_frames(
    poses_F44: np.ndarray,
    frame_ids_F: Sequence[int] | np.ndarray,
    *,
    stride: int = 1,
    listed: Collection[int] | None = None,
) -> Candidates:
    """Return every ``stride``-th frame of the stream, or those ``listed``, with a valid pose.

    Args:
        poses_F44: (F,4,4) camera-to-world pose of each frame of the reader.
        frame_ids_F: (F,) index in the stream of each frame of the reader, ascending.
        stride: step through the stream, from frame 0; of no meaning where frames are listed.
        listed: indices in the stream, in any order; None: by stride.
    """
    place_of = {int(frame): place for place, frame in enumerate(frame_ids_F)}
    wanted = [frame for frame in place_of if frame % stride == 0]
    if listed is not None:
        wanted = sorted(listed)
    valid_F, finite_F = has_valid_pose(poses_F44), np.isfinite(poses_F44).all(axis=(1, 2))
    there = [frame for frame in wanted if frame in place_of]
    kept = [frame for frame in there if valid_F[place_of[frame]]]
    reasons = ("the pose is not finite", "the pose is all zero")
    dropped = [
        (frame, reasons[int(finite_F[place_of[frame]])])
        for frame in there
        if not valid_F[place_of[frame]]
    ]
    missing = [(frame, "listed, but not in the scan") for frame in wanted if frame not in place_of]
    return Candidates(
        frames=tuple(kept),
        places=tuple(place_of[frame] for frame in kept),
        dropped=(*dropped, *missing),
    )


def uniform_indices(n: int, count: int) -> list[int]:
    """Return ``count`` indices evenly spaced over 0..n-1: linspace truncated to integers.

    With fewer than ``count`` candidates, indices repeat, as in the published method.
    """
    return np.linspace(0, n - 1, count).astype(int).tolist()


@dataclass(frozen=True, kw_only=True)
class FrameSelection:
    """The V frames of a scene store."""

    places: list[int]  # of the frames in their reader, in time order; may repeat
    frame_ids: list[int]  # their indices in the stream
    notes: list[str]  # what the user should know: dropped poses, repeated frames
    # Voxels of 0.1 m ``covered``, ``coverable``, and of the mesh (``voxels``); None for `uniform`.
    coverage: dict[str, int] | None


def select_frames(
    scan: ScanFiles,
    reader: Frames,
    settings: SceneSettings,
    alignment: np.ndarray,
    intrinsic: np.ndarray,
    lists: PublishedLists,
) -> FrameSelection:
    """Choose the frames of ``scan``.

    Args:
        alignment: (4,4) the scan's own frame to the axis-aligned world.
        intrinsic: (4,4) of the depth image.

    Raises:
        DataError: no candidate frame has a valid pose, one is not a rigid motion, none sees the
            mesh, or none of the published choice is a candidate.
        SensError: a depth payload is damaged.
    """
    listed = None if lists.infos is None else lists.infos.frames
    found = candidate_frames(reader.poses, reader.frame_ids, stride=settings.stride, listed=listed)
    if not found.frames:
        how = f"stride {settings.stride}); lower frames.stride, or {LEAVE_OUT}"
        if listed is not None:
            how = f"{len(listed)} listed); set data.candidates: null, or {LEAVE_OUT}"
        raise DataError(
            f"{reader.path}: scene {scan.scene} has no candidate frame with a valid pose "
            f"({len(reader)} frames, {how}"
        )
    more = check_poses(
        reader.poses[[*found.places]], lambda row: f"{reader.path}: frame {found.frames[row]}"
    )
    coverage = None
    if settings.strategy == "uniform":
        indices = uniform_indices(len(found.frames), settings.count)
    elif lists.selected is not None:
        indices, notes = _published_choice(reader, settings, found, lists.selected)
        more += notes
    else:
        cover = _cover(scan, reader, settings, alignment, intrinsic, lists, found)
        indices = cover.indices
        if settings.strategy == "coverage" and len(indices) < settings.count:
            few = f"{len(indices)} candidate frames to choose {settings.count} from"
            more.append(f"only {few}: all are taken")
        coverage = {"covered": cover.covered, "coverable": cover.coverable, "voxels": cover.voxels}
    places = [found.places[index] for index in indices]
    return FrameSelection(
        places=places,
        frame_ids=[found.frames[index] for index in indices],
        notes=_notes(found, settings) + more,
        coverage=coverage,
    )


def _limit(settings: SceneSettings) -> int | None:
    """Return the most frames that a coverage strategy takes; None: as many as its share needs."""
    share = PERCENT[settings.strategy] is not None
    return None if share and not settings.stop_at_count else settings.count


def _published_choice(
    reader: Frames, settings: SceneSettings, found: Candidates, selected: SelectedFrames
) -> tuple[list[int], list[str]]:
    """Return which candidates the published list chooses, ascending, and notes."""
    length = prefix_length(
        selected.gains, selected.coverable, _limit(settings), PERCENT[settings.strategy]
    )
    chosen = selected.frames[:length]
    index_of = {frame: index for index, frame in enumerate(found.frames)}
    indices = sorted(index_of[frame] for frame in chosen if frame in index_of)
    if not indices:
        raise DataError(
            f"{reader.path}: none of the {length} frames that data.selected_frames lists is a "
            "candidate with a valid pose; check that both are of the same export, or set it to null"
        )
    lost = [frame for frame in chosen if frame not in index_of]
    notes = []
    if settings.strategy == "coverage" and length < settings.count:
        notes.append(f"the published list holds only {length} frames for {settings.count}")
    if lost:
        notes.append(f"{len(lost)} of {length} published frames are no candidates: {_some(lost)}")
    return indices, notes


def _cover(
    scan: ScanFiles,
    reader: Frames,
    settings: SceneSettings,
    alignment: np.ndarray,
    intrinsic: np.ndarray,
    lists: PublishedLists,
    found: Candidates,
) -> Coverage:
    # The point cloud comes first: the published voxels are the same ones, rounded already.
    if scan.point_cloud is None and lists.voxels_M3 is not None:
        where = lists.voxels_source
        voxels = MeshVoxels(lists.voxels_M3 * VOXEL, f"{where}: {scan.scene}")
    else:
        where = str(scan.point_cloud or scan.mesh)
        voxels = MeshVoxels(aligned_vertices(scan), where)

    def seen(candidate: int) -> np.ndarray:
        place = found.places[candidate]
        depth_HW = reader.depth_millimetres(place)
        return voxels.seen(depth_HW, intrinsic, alignment @ reader.poses[place])

    cover = coverage_indices(
        len(found.frames), settings.strategy, _limit(settings), len(voxels), seen
    )
    if not cover.coverable:
        raise DataError(
            f"{where}: no depth pixel of {cover.looked_at} frames falls on the mesh; check "
            f"that it is the mesh of {reader.path}, or set frames.strategy: uniform"
        )
    return cover


def _notes(found: Candidates, settings: SceneSettings) -> list[str]:
    notes = []
    if found.dropped:
        reasons = " or ".join(sorted({reason for _, reason in found.dropped}))
        notes.append(
            f"{len(found.dropped)} of {len(found.frames) + len(found.dropped)} candidate frames "
            f"dropped ({reasons}): {_some([frame for frame, _ in found.dropped])}"
        )
    if settings.strategy == "uniform" and len(found.frames) < settings.count:
        notes.append(
            f"only {len(found.frames)} candidate frames for {settings.count}: frames are repeated"
        )
    return notes


def _some(frames: Sequence[int]) -> str:
    """Return the first frames of a list, for a note."""
    return ", ".join(map(str, frames[:_SHOWN])) + (", ..." if len(frames) > _SHOWN else "")
