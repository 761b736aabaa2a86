"""Writing a scene store: arrays, provenance, and the hash of what a consumer can read.

The layout stands in `threedrs.scenes.store`, which reads it. Writing 32 frames costs about a
second, most of it compression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import threedrs
from threedrs.io.zarr_store import create_store, write_array, write_bytes
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scannet.geometry import IMAGE_SIZE
from threedrs.scenes.masks import pack_masks
from threedrs.scenes.store import FORMAT_VERSION, content_hash


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneContents:
    """What `write_scene_store` writes; shapes and units as in the table of `threedrs.scenes.store`.

    Attributes:
        masks: box set -> fine (N,V,27,27) and coarse (N,V,14,14), bool.
        attributes: scene, split, frame_ids, invalid_depth, and JSON values of provenance.
    """

    rgb: np.ndarray
    jpegs: Sequence[bytes]
    depth: np.ndarray
    poses: np.ndarray
    depth_intrinsic: np.ndarray
    depth_size: tuple[int, int]
    patch_xyz: np.ndarray
    boxes: Mapping[str, BoxSet]
    masks: Mapping[str, tuple[np.ndarray, np.ndarray]]
    attributes: Mapping[str, Any]


def write_scene_store(path: Path, contents: SceneContents) -> None:
    """Write a scene store, whole or not at all; an older one at ``path`` is replaced.

    Raises:
        StoreError: the store cannot be written (for instance, the disk is full).
    """
    with create_store(path) as group:
        frame = (1, IMAGE_SIZE, IMAGE_SIZE)
        digests = {
            "rgb": write_array(
                group, "rgb", contents.rgb, chunk_shape=(*frame, 3), compressed=False
            ),
            "jpeg": write_bytes(group, "jpeg", contents.jpegs),
            "depth": write_array(group, "depth", contents.depth, chunk_shape=frame),
            "pose": write_array(group, "pose", contents.poses),
            "depth_intrinsic": write_array(
                group,
                "depth_intrinsic",
                contents.depth_intrinsic,
                attributes={"depth_size": list(contents.depth_size)},
            ),
            "patch_xyz": write_array(group, "patch_xyz", contents.patch_xyz),
        }
        for name in BOX_SETS:
            box_set, (fine, coarse) = contents.boxes[name], contents.masks[name]
            for array, values, attributes in (
                (f"boxes/{name}", box_set.boxes, {"labels": list(box_set.labels)}),
                (f"boxes/{name}_ids", box_set.ids, {}),
                (f"masks/{name}/fine", pack_masks(fine), {}),
                (f"masks/{name}/coarse", pack_masks(coarse), {}),
            ):
                digests[array] = write_array(group, array, values, attributes=attributes)
        group.attrs.update(
            {
                "format_version": FORMAT_VERSION,
                "threedrs_version": threedrs.__version__,
                **contents.attributes,
                "digests": digests,
                "content": content_hash(
                    digests,
                    contents.attributes,
                    contents.depth_size,
                    {name: contents.boxes[name].labels for name in BOX_SETS},
                ),
            }
        )
