"""What a scene store is made from: the chosen frames of the scan, and the hash of all inputs.

The hash decides whether a finished store may be kept. It costs the choice of frames
(`threedrs.scenes.frame_selection`) and the chosen frames' payloads (some 15 MB of a file of
gigabytes), so with `uniform` a shard with one new scan is remade in about the time of one scene.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import sha256_of_json
from threedrs.io.zarr_store import array_digest
from threedrs.scannet.axis_alignment import axis_alignment
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scannet.layout import ScanFiles
from threedrs.scenes.frame_reader import Frames
from threedrs.scenes.frame_selection import choose_frames
from threedrs.scenes.settings import SceneSettings
from threedrs.workflow.code_hash import code_hash


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The inputs of one scene store.

    Attributes:
        places: of the V frames in their reader, in time order; may repeat.
        frame_ids: index in the stream of each of the V frames.
        poses_V44: (V,4,4) f64 camera to axis-aligned world, metres.
        notes: what the user should know: dropped poses, repeated frames.
        coverage: how much of the mesh the frames cover
            (`threedrs.scenes.frame_selection`), or None.
        source_sha256: of the scan's header and the chosen frames' payloads.
        inputs_sha256: of all that the store depends on: payloads, poses, alignment, boxes,
            settings, split, notes, and this package's code.
    """

    places: list[int]
    frame_ids: list[int]
    poses_V44: np.ndarray
    notes: list[str]
    coverage: dict[str, int] | None
    source_sha256: str
    inputs_sha256: str


def read_source(
    scan: ScanFiles,
    frames: Frames,
    boxes: Mapping[str, BoxSet],
    chosen: SceneSettings,
    split: str,
    listed: Collection[int] | None,
) -> Source:
    """Choose the frames of ``scan`` and hash its inputs.

    Raises:
        DataError: no candidate frame has a valid pose, none sees the mesh that the strategy looks
            at, or the depth intrinsic is unusable.
        SensError: the .sens is damaged.
    """
    intrinsic = frames.header.intrinsic_depth
    if intrinsic[0, 0] <= 0 or intrinsic[1, 1] <= 0:
        raise DataError(f"{frames.path}: the depth intrinsic's focal length is not positive")
    alignment = axis_alignment(scan)
    found = choose_frames(scan, frames, chosen, alignment, listed)
    poses_V44 = alignment @ frames.poses[found.places]
    payloads = hashlib.sha256(frames.header_bytes)
    for place in dict.fromkeys(found.places):
        payloads.update(frames.color_bytes(place))
        payloads.update(frames.depth_bytes(place))
    inputs = {
        "code": code_hash("scenes"),
        "payloads": payloads.hexdigest(),
        "frame_ids": found.frame_ids,
        "poses": array_digest(poses_V44),
        "boxes": {
            name: [array_digest(boxes[name].boxes), array_digest(boxes[name].ids)]
            for name in BOX_SETS
        },
        "labels": {name: list(boxes[name].labels) for name in BOX_SETS},
        "settings": chosen.to_json(),
        "scene": scan.scene,
        "split": split,
        "notes": found.notes,
        "coverage": found.coverage,
    }
    return Source(
        places=found.places,
        frame_ids=found.frame_ids,
        poses_V44=poses_V44,
        notes=found.notes,
        coverage=found.coverage,
        source_sha256=payloads.hexdigest(),
        inputs_sha256=sha256_of_json(inputs),
    )
