"""What a scene store is made from: the chosen frames of the .sens, and the hash of all inputs.

The hash decides whether a finished store may be kept. It costs the .sens index and the chosen
frames' payloads (some 15 MB of a file of gigabytes), so a shard with one new scan is remade in
about the time of one scene.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.files import sha256_of_json
from threedrs.frames import candidates, uniform
from threedrs.frames.candidates import Candidates, candidate_frames
from threedrs.frames.uniform import uniform_indices
from threedrs.layout import ScanFiles
from threedrs.scannet import geometry, sens, sens_format, sens_payload
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scannet.meta import axis_alignment
from threedrs.scannet.sens import SensReader
from threedrs.scenes import masks, settings, store, writer, zarr_io
from threedrs.scenes.settings import SceneSettings
from threedrs.scenes.zarr_io import array_digest


class PayloadKeeper(SensReader):
    """A reader that keeps the payloads it has read, so that none is read twice."""

    def __init__(self, path: Path) -> None:
        self._color: dict[int, bytes] = {}
        self._depth: dict[int, bytes] = {}
        super().__init__(path)

    def color_bytes(self, index: int) -> bytes:
        """Return the colour payload of frame ``index``, from the file the first time only."""
        if index not in self._color:
            self._color[index] = super().color_bytes(index)
        return self._color[index]

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth payload of frame ``index``, from the file the first time only."""
        if index not in self._depth:
            self._depth[index] = super().depth_bytes(index)
        return self._depth[index]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The inputs of one scene store.

    Attributes:
        frame_ids: index in the stream of each of the V frames, in time order; may repeat.
        poses_V44: (V,4,4) f64 camera to axis-aligned world, metres.
        notes: what the user should know: dropped poses, repeated frames.
        source_sha256: of the .sens header and the chosen frames' payloads.
        inputs_sha256: of all that the store depends on: payloads, poses, alignment, boxes,
            settings, split, notes, and this package's code.
    """

    frame_ids: list[int]
    poses_V44: np.ndarray
    notes: list[str]
    source_sha256: str
    inputs_sha256: str


def read_source(
    scan: ScanFiles,
    reader: SensReader,
    boxes: Mapping[str, BoxSet],
    chosen: SceneSettings,
    split: str,
) -> Source:
    """Choose the frames of ``scan`` and hash its inputs.

    Raises:
        DataError: no candidate frame has a valid pose, or the depth intrinsic is unusable.
        SensError: the .sens is damaged.
    """
    intrinsic = reader.header.intrinsic_depth
    if intrinsic[0, 0] <= 0 or intrinsic[1, 1] <= 0:
        raise DataError(f"{scan.sens}: the depth intrinsic's focal length is not positive")
    found = candidate_frames(reader.poses, chosen.stride)
    if not found.frames:
        raise DataError(
            f"{scan.sens}: scene {scan.scene} has no candidate frame with a valid pose "
            f"({len(reader)} frames, stride {chosen.stride}); leave it out of the scene list, or "
            "lower frames.stride"
        )
    frame_ids = [found.frames[i] for i in uniform_indices(len(found.frames), chosen.count)]
    notes = _notes(found, chosen)
    alignment = axis_alignment(scan)
    poses_V44 = alignment @ reader.poses[frame_ids]
    payloads = hashlib.sha256(reader.header_bytes)
    for frame in dict.fromkeys(frame_ids):
        payloads.update(reader.color_bytes(frame))
        payloads.update(reader.depth_bytes(frame))
    inputs = {
        "code": _code_digest(),
        "payloads": payloads.hexdigest(),
        "frame_ids": frame_ids,
        "poses": array_digest(poses_V44),
        "boxes": {
            name: [array_digest(boxes[name].boxes), array_digest(boxes[name].ids)]
            for name in BOX_SETS
        },
        "labels": {name: list(boxes[name].labels) for name in BOX_SETS},
        "settings": asdict(chosen),
        "scene": scan.scene,
        "split": split,
        "notes": notes,
    }
    return Source(
        frame_ids=frame_ids,
        poses_V44=poses_V44,
        notes=notes,
        source_sha256=payloads.hexdigest(),
        inputs_sha256=sha256_of_json(inputs),
    )


def _notes(found: Candidates, chosen: SceneSettings) -> list[str]:
    notes = []
    if found.dropped:
        shown = ", ".join(str(drop.frame) for drop in found.dropped[:10])
        more = ", ..." if len(found.dropped) > 10 else ""
        reasons = " or ".join(sorted({drop.reason for drop in found.dropped}))
        notes.append(
            f"{len(found.dropped)} of {len(found.frames) + len(found.dropped)} candidate frames "
            f"dropped ({reasons}): {shown}{more}"
        )
    if len(found.frames) < chosen.count:
        notes.append(
            f"only {len(found.frames)} candidate frames for {chosen.count}: frames are repeated"
        )
    return notes


@cache
def _code_digest() -> str:
    """Return the hash of the modules that shape a store: changed code remakes kept stores."""
    readers = [candidates, uniform, geometry, sens, sens_format, sens_payload]
    writers = [masks, settings, store, writer, zarr_io]
    here = Path(__file__)
    files = [Path(str(module.__file__)) for module in readers + writers]
    digest = hashlib.sha256()
    for file in [*files, here, here.with_name("build.py")]:
        digest.update(file.read_bytes())
    return digest.hexdigest()
