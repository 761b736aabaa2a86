"""Which frames of a scan a scene store holds: the candidates, and the strategy's choice of V.

`uniform` costs nothing; the coverage strategies read the mesh and decode the depth of every second
candidate (some 3 s a scene of 300 candidates).
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np

from threedrs.errors import DataError
from threedrs.scannet.boxes import aligned_vertices
from threedrs.scannet.layout import ScanFiles
from threedrs.scenes.candidates import Candidates, candidate_frames, listed_frames
from threedrs.scenes.coverage import Coverage, MeshVoxels, coverage_indices
from threedrs.scenes.frame_reader import Frames
from threedrs.scenes.settings import SceneSettings
from threedrs.scenes.uniform import uniform_indices

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The V frames of a scene store.

    Attributes:
        places: of the frames in their reader, in time order; may repeat.
        frame_ids: their indices in the stream.
        notes: what the user should know: dropped poses, repeated frames.
        coverage: voxels of 0.1 m ``covered``, ``coverable``, and of the mesh (``voxels``); None
            for `uniform`.
    """

    places: list[int]
    frame_ids: list[int]
    notes: list[str]
    coverage: dict[str, int] | None


def choose_frames(
    scan: ScanFiles,
    reader: Frames,
    chosen: SceneSettings,
    alignment: np.ndarray,
    listed: Collection[int] | None,
) -> Choice:
    """Choose the frames of ``scan``.

    Args:
        scan: the scan's files; coverage strategies read the mesh.
        reader: the scan's frames.
        chosen: stride, strategy and count.
        alignment: (4,4) the scan's own frame to the axis-aligned world.
        listed: candidate frames from EmbodiedScan; None: by stride.

    Raises:
        DataError: no candidate frame has a valid pose, or none sees the mesh.
        SensError: a depth payload is damaged.
    """
    if listed is None:
        found = candidate_frames(reader.poses, chosen.stride, reader.frame_ids)
        how = f"stride {chosen.stride}); leave it out of the scene list, or lower frames.stride"
    else:
        found = listed_frames(reader.poses, reader.frame_ids, listed)
        how = f"{len(listed)} listed); leave it out of the scene list, or set data.candidates: null"
    if not found.frames:
        raise DataError(
            f"{reader.path}: scene {scan.scene} has no candidate frame with a valid pose "
            f"({len(reader)} frames, {how}"
        )
    coverage = None
    if chosen.strategy == "uniform":
        indices = uniform_indices(len(found.frames), chosen.count)
    else:
        cover = _cover(scan, reader, chosen, alignment, found)
        indices = cover.indices
        coverage = {
            name: value
            for name, value in asdict(cover).items()
            if name in ("covered", "coverable", "voxels")
        }
    places = [found.places[index] for index in indices]
    reader.keep_only(set(places))
    return Choice(
        places=places,
        frame_ids=[found.frames[index] for index in indices],
        notes=_notes(found, chosen, len(indices)),
        coverage=coverage,
    )


def _cover(
    scan: ScanFiles,
    reader: Frames,
    chosen: SceneSettings,
    alignment: np.ndarray,
    found: Candidates,
) -> Coverage:
    voxels = MeshVoxels(aligned_vertices(scan), str(scan.mesh))

    def seen(candidate: int) -> np.ndarray:
        place = found.places[candidate]
        return voxels.seen(
            reader.depth_millimetres(place),
            reader.header.intrinsic_depth,
            alignment @ reader.poses[place],
        )

    cover = coverage_indices(len(found.frames), chosen.strategy, chosen.count, len(voxels), seen)
    if not cover.coverable:
        raise DataError(
            f"{scan.mesh}: no depth pixel of {cover.looked_at} frames falls on the mesh; check "
            f"that it is the mesh of {reader.path}, or set frames.strategy: uniform"
        )
    return cover


def _notes(found: Candidates, chosen: SceneSettings, frames: int) -> list[str]:
    notes = []
    if found.dropped:
        shown = ", ".join(str(drop.frame) for drop in found.dropped[:_SHOWN])
        more = ", ..." if len(found.dropped) > _SHOWN else ""
        reasons = " or ".join(sorted({drop.reason for drop in found.dropped}))
        notes.append(
            f"{len(found.dropped)} of {len(found.frames) + len(found.dropped)} candidate frames "
            f"dropped ({reasons}): {shown}{more}"
        )
    if chosen.strategy == "uniform" and len(found.frames) < chosen.count:
        notes.append(
            f"only {len(found.frames)} candidate frames for {chosen.count}: frames are repeated"
        )
    if chosen.strategy == "coverage" and frames < chosen.count:
        notes.append(f"only {frames} candidate frames looked at for {chosen.count}: all are taken")
    return notes
