"""The scene store: one zarr v3 group a scene, read by students, teachers and reports.

``rgb`` and ``depth`` are sharded: one file each, whose frames are decoded one by one. A training
sample reads ``rgb`` and the small arrays (some 10 MB for 32 frames); the full coordinate map is
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
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import StoreError
from threedrs.io.files import sha256_of_json
from threedrs.io.zarr_store import StoreReader, array_digest, bytes_digest
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scannet.geometry import GRID, IMAGE_SIZE, coordinate_map
from threedrs.scenes.masks import COARSE_GRID, FINE_GRID, unpack_masks

FORMAT_VERSION = 1
_REMEDY = (
    "delete its shard's file in results/scenes/shards and run `snakemake --cores all scenes` to "
    "remake it"
)
# Attributes that a consumer computes with; the others say where the store comes from.
_CONTENT_ATTRIBUTES = ("scene", "split", "frame_ids", "invalid_depth")


class SceneStore:
    """One scene, opened for reading; every method decodes one array, anew each call.

    Every method raises StoreError, naming store and array, if the array is missing or damaged.

    Attributes:
        path: the store's folder.
        scene: ScanNet's scene name.
        split: train, val or test.
        frame_ids: index in the stream of each of the V frames, in time order; may repeat.
        depth_size: (width, height) of the original depth image.
        attributes: all attributes, as written.
    """

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self.path: Path = reader.path
        self.attributes: dict[str, Any] = reader.attributes
        self._check_attributes()
        self.scene: str = self.attributes["scene"]
        self.split: str = self.attributes["split"]
        self.frame_ids: list[int] = self.attributes["frame_ids"]
        self._check_arrays()
        width, height = self._array_attribute("depth_intrinsic", "depth_size", int, 2)
        self.depth_size: tuple[int, int] = (width, height)
        self._labels = {
            name: tuple(
                self._array_attribute(f"boxes/{name}", "labels", str, self._object_counts[name])
            )
            for name in BOX_SETS
        }
        if self.content_hash() != content_hash(
            self.attributes["digests"], self.attributes, self.depth_size, self._labels
        ):
            raise reader.error("the attributes are damaged (they do not fit the content hash)")

    @classmethod
    def open(cls, path: Path) -> "SceneStore":
        """Open a scene store and check version, attributes, and every array's shape and dtype.

        Raises:
            StoreError: there is no store, it is damaged, or of another format version.
        """
        if not (Path(path) / "zarr.json").is_file():  # perhaps a mistyped name
            raise StoreError(
                f"{path}: there is no scene store here; check the name (`snakemake --cores all "
                "scenes` makes the stores, `threedrs verify` finds lost ones)"
            )
        return cls(
            StoreReader.open(
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
        self._check_set(box_set)
        return BoxSet(
            boxes=self._reader.read(f"boxes/{box_set}"),
            ids=self._reader.read(f"boxes/{box_set}_ids"),
            labels=self._labels[box_set],
        )

    def masks(self, box_set: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the patches that see each box: fine (N,V,27,27), coarse (N,V,14,14), bool."""
        self._check_set(box_set)
        return (
            unpack_masks(self._reader.read(f"masks/{box_set}/fine"), FINE_GRID),
            unpack_masks(self._reader.read(f"masks/{box_set}/coarse"), COARSE_GRID),
        )

    def content_hash(self) -> str:
        """Return the hash of everything a consumer can read, as recorded when written."""
        return str(self.attributes["content"])

    def object_counts(self) -> dict[str, int]:
        """Return the number of boxes of each set."""
        return dict(self._object_counts)

    def verify(self) -> None:
        """Read every array and compare it with its recorded hash; costs about 0.1 s.

        Raises:
            StoreError: an array is damaged; the first found is named.
        """
        for name, recorded in self.attributes["digests"].items():
            found = (
                bytes_digest(self.jpegs())
                if name == "jpeg"
                else array_digest(self._reader.read(name))
            )
            if found != recorded:
                raise self._reader.error(f"array {name} is damaged (it does not fit its hash)")

    def _check_set(self, box_set: str) -> None:
        if box_set not in BOX_SETS:
            raise StoreError(
                f"there is no box set {box_set!r}; choose one of {', '.join(BOX_SETS)}"
            )

    def _check_attributes(self) -> None:
        kinds = {"scene": str, "split": str, "frame_ids": list, "digests": dict, "content": str}
        for name, kind in {**kinds, "invalid_depth": str}.items():
            if not isinstance(self.attributes.get(name), kind):
                raise self._reader.error(f"attribute {name} is missing or malformed")
        if not all(isinstance(text, str) for text in self.attributes["digests"].values()):
            raise self._reader.error("attribute digests is malformed")
        frame_ids = self.attributes["frame_ids"]
        if not frame_ids or not all(type(frame) is int and frame >= 0 for frame in frame_ids):
            raise self._reader.error("attribute frame_ids is not a list of frame numbers")

    def _check_arrays(self) -> None:
        frames, check = len(self.frame_ids), self._reader.check
        check("rgb", (frames, IMAGE_SIZE, IMAGE_SIZE, 3), "uint8")
        check("jpeg", (frames,), "bytes")
        check("depth", (frames, IMAGE_SIZE, IMAGE_SIZE), "uint16")
        check("pose", (frames, 4, 4), "float64")
        check("depth_intrinsic", (4, 4), "float64")
        check("patch_xyz", (frames, GRID, GRID, 3), "float32")
        self._object_counts: dict[str, int] = {}
        for name in BOX_SETS:
            count = check(f"boxes/{name}", (None, 6), "float32")[0]
            check(f"boxes/{name}_ids", (count,), "int32")
            check(f"masks/{name}/fine", (count, frames, -(-(FINE_GRID**2) // 8)), "uint8")
            check(f"masks/{name}/coarse", (count, frames, -(-(COARSE_GRID**2) // 8)), "uint8")
            self._object_counts[name] = count

    def _array_attribute(self, array: str, name: str, kind: type, count: int) -> list[Any]:
        values = self._reader.array_attributes(array).get(name)
        if (
            not isinstance(values, list)
            or len(values) != count
            or not all(type(value) is kind for value in values)
        ):
            raise self._reader.error(f"attribute {name} of array {array} is missing or malformed")
        return values


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
