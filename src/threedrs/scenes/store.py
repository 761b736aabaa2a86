"""The scene store: one zarr v3 group a scene, its writer, and its reader for all later stages.

``rgb`` and ``depth`` are sharded: one file each, whose frames are decoded one by one. A training
sample reads ``rgb`` and the small arrays (some 10 MB for 32 frames). The full coordinate map is
recomputed from ``depth``. Layout, with V frames, N objects of each box set (``gt``, ``pred``):

    rgb               (V,384,384,3) u8       student input
    jpeg              (V,) bytes             colour payloads as captured, for any resolution
    depth             (V,384,384) u16        mm, nearest-resized; 0: no measurement
    pose              (V,4,4) f64            camera to axis-aligned world, metres
    depth_intrinsic   (4,4) f64              of the original depth image; attribute depth_size [w,h]
    patch_xyz         (V,14,14,3) f32        mean world coordinate of each 27x27-pixel patch
    boxes/<set>       (N,6) f32              centre + size, metres; attribute labels
    boxes/<set>_ids   (N,) i32               object ids
    masks/<set>/fine  (N,V,92) u8            27x27 bits, row-major, highest bit first
    masks/<set>/coarse (N,V,25) u8           14x14 bits

Attributes say where the store comes from. ``digests`` has the hash of each array's values, and
``content`` the hash of all that a consumer can read. Writing 32 frames costs about a second, most
of it compression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import threedrs
from threedrs.errors import StoreError
from threedrs.io import zarr_store
from threedrs.io.files import sha256_of_json
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scannet.geometry import (
    FINE_GRID,
    GRID,
    IMAGE_SIZE,
    coordinate_map,
    pack_masks,
    unpack_masks,
)

FORMAT_VERSION = 1
_REMEDY = "run `threedrs verify --repair`, which says how to make it again"
# Attributes that a consumer computes with; the others say where the store comes from.
_CONTENT_ATTRIBUTES = ("scene", "split", "frame_ids", "invalid_depth")


class SceneStore:
    """One scene, opened for reading; every method decodes one array, anew each call but for boxes.

    Every method raises StoreError, naming store and array, if the array is missing or damaged.

    Attributes:
        path: the store's folder.
        scene: ScanNet's scene name.
        split: train, val or test.
        frame_ids: index in the stream of each of the V frames, in time order; may repeat.
        depth_size: (width, height) of the original depth image.
        attributes: all attributes, as written.
    """

    def __init__(self, reader: zarr_store.StoreReader) -> None:
        self._reader = reader
        self.path: Path = reader.path
        self.attributes: dict[str, Any] = reader.attributes
        try:
            self.scene: str = self.attributes["scene"]
            self.split: str = self.attributes["split"]
            self.frame_ids: list[int] = self.attributes["frame_ids"]
            width, height = reader.array_attributes("depth_intrinsic")["depth_size"]
            self.depth_size: tuple[int, int] = (width, height)
            self._labels = {
                name: tuple(reader.array_attributes(f"boxes/{name}")["labels"]) for name in BOX_SETS
            }
            found = content_hash(
                self.attributes["digests"], self.attributes, self.depth_size, self._labels
            )
        except StoreError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise reader.error(f"the attributes are damaged ({error!r})") from error
        # The store is our own: the hash that it carries stands for checks of each attribute.
        if self.content_hash() != found:
            raise reader.error("the attributes are damaged (they do not fit the content hash)")
        self._boxes: dict[str, BoxSet] = {}
        # A store of which a crash left a part is named here, and not hours later.
        for name in self.attributes["digests"]:
            reader.shape(name)

    @classmethod
    def open(cls, path: Path) -> "SceneStore":
        """Open a scene store and check version, attributes, and that every array is there.

        Raises:
            StoreError: there is no store, it is damaged, or of another format version.
        """
        if not (Path(path) / "zarr.json").is_file():  # perhaps a mistyped name
            raise StoreError(
                f"{path}: there is no scene store here; check the name (`snakemake --cores all "
                "scenes` makes the stores, `threedrs verify` finds lost ones)"
            )
        return cls(
            zarr_store.StoreReader.open(
                path, kind="scene store", format_version=FORMAT_VERSION, remedy=_REMEDY
            )
        )

    def rgb(self) -> np.ndarray:
        """Return the student's input images, (V,384,384,3) u8."""
        return self._reader.read("rgb")

    def jpegs(self) -> list[bytes]:
        """Return the V colour images as captured, compressed (JPEG, or PNG)."""
        return self._reader.read_bytes("jpeg")

    def depth(self) -> np.ndarray:
        """Return the depth of each pixel of the square, (V,384,384) u16, mm, 0: none."""
        return self._reader.read("depth")

    def poses(self) -> np.ndarray:
        """Return camera to axis-aligned world, (V,4,4) f64, metres."""
        return self._reader.read("pose")

    def depth_intrinsic(self) -> np.ndarray:
        """Return the pinhole matrix of the original depth image, (4,4) f64, pixels."""
        return self._reader.read("depth_intrinsic")

    def patch_xyz(self) -> np.ndarray:
        """Return the mean world coordinate of each visual token's patch, (V,14,14,3) f32, m."""
        return self._reader.read("patch_xyz")

    def coordinates(self) -> np.ndarray:
        """Return the world coordinate of each pixel of the square, (V,384,384,3) f32, metres.

        Where `depth` is 0 it is the camera centre, under either invalid-depth policy.
        """
        intrinsic = self.depth_intrinsic()
        coordinates = np.empty((len(self.frame_ids), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
        for row, (depth, pose) in enumerate(zip(self.depth(), self.poses(), strict=True)):
            coordinates[row] = coordinate_map(depth, pose, intrinsic, self.depth_size)
        return coordinates

    def boxes(self, box_set: str) -> BoxSet:
        """Return the boxes of ``gt`` or ``pred``."""
        # Their two small arrays take zarr as long as half of a training sample takes otherwise, and
        # each sample asks for them more than once.
        if box_set not in self._boxes:
            self._boxes[box_set] = BoxSet(
                boxes=self._reader.read(f"boxes/{box_set}"),
                ids=self._reader.read(f"boxes/{box_set}_ids"),
                labels=self._labels[box_set],
            )
        return self._boxes[box_set]

    def masks(self, box_set: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the patches that see each box: fine (N,V,27,27), coarse (N,V,14,14), bool."""
        return (
            unpack_masks(self._reader.read(f"masks/{box_set}/fine"), FINE_GRID),
            unpack_masks(self._reader.read(f"masks/{box_set}/coarse"), GRID),
        )

    def content_hash(self) -> str:
        """Return the hash of everything a consumer can read, as recorded when written."""
        return str(self.attributes.get("content"))

    def object_counts(self) -> dict[str, int]:
        """Return the number of boxes of each set."""
        return {name: self._reader.shape(f"boxes/{name}")[0] for name in BOX_SETS}

    def verify(self) -> None:
        """Read every array and compare it with its recorded hash; costs about 0.1 s.

        Raises:
            StoreError: an array is damaged. The first found is named.
        """
        for name, recorded in self.attributes["digests"].items():
            found = (
                zarr_store.bytes_digest(self.jpegs())
                if name == "jpeg"
                else zarr_store.array_digest(self._reader.read(name))
            )
            if found != recorded:
                raise self._reader.error(f"array {name} is damaged (it does not fit its hash)")


def content_hash(
    digests: Mapping[str, str],
    attributes: Mapping[str, Any],
    depth_size: tuple[int, int],
    labels: Mapping[str, Sequence[str]],
) -> str:
    """Return the hash of what a consumer can read, whatever zarr's encoding or our version."""
    return sha256_of_json(
        {
            "arrays": dict(digests),
            "attributes": {name: attributes[name] for name in _CONTENT_ATTRIBUTES},
            "depth_size": list(depth_size),
            "labels": {name: list(texts) for name, texts in labels.items()},
        }
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneContents:
    """What `write_scene_store` writes; shapes and units as in this module's table."""

    rgb: np.ndarray
    jpegs: Sequence[bytes]
    depth: np.ndarray
    poses: np.ndarray
    depth_intrinsic: np.ndarray
    depth_size: tuple[int, int]
    patch_xyz: np.ndarray
    boxes: Mapping[str, BoxSet]
    # Box set -> fine (N,V,27,27) and coarse (N,V,14,14), bool.
    masks: Mapping[str, tuple[np.ndarray, np.ndarray]]
    # Scene, split, frame_ids, invalid_depth, and JSON values of provenance.
    attributes: Mapping[str, Any]


def write_scene_store(path: Path, contents: SceneContents) -> None:
    """Write a scene store, whole or not at all. An older one at ``path`` is replaced.

    Raises:
        StoreError: the store cannot be written (for instance, the disk is full).
    """
    with zarr_store.create_store(path) as group:
        frame = (1, IMAGE_SIZE, IMAGE_SIZE)
        digests = {
            "rgb": zarr_store.write_array(
                group, "rgb", contents.rgb, chunk_shape=(*frame, 3), compressed=False
            ),
            "jpeg": zarr_store.write_bytes(group, "jpeg", contents.jpegs),
            "depth": zarr_store.write_array(group, "depth", contents.depth, chunk_shape=frame),
            "pose": zarr_store.write_array(group, "pose", contents.poses),
            "depth_intrinsic": zarr_store.write_array(
                group,
                "depth_intrinsic",
                contents.depth_intrinsic,
                attributes={"depth_size": list(contents.depth_size)},
            ),
            "patch_xyz": zarr_store.write_array(group, "patch_xyz", contents.patch_xyz),
        }
        for name in BOX_SETS:
            box_set, (fine, coarse) = contents.boxes[name], contents.masks[name]
            for array, values, attributes in (
                (f"boxes/{name}", box_set.boxes, {"labels": list(box_set.labels)}),
                (f"boxes/{name}_ids", box_set.ids, {}),
                (f"masks/{name}/fine", pack_masks(fine), {}),
                (f"masks/{name}/coarse", pack_masks(coarse), {}),
            ):
                digests[array] = zarr_store.write_array(group, array, values, attributes=attributes)
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
