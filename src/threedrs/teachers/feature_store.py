"""The feature store: one shard's teacher features, one zarr group a scene.

``<shard>.zarr/<scene>/features`` holds (V, h, w, C) float16, one chunk a frame, sharded to one file
a scene, every chunk with its crc32c. ``<shard>.zarr/manifest.json`` is written last, so a store
without it is unfinished. Reading a scene of 32 frames at 14x14x2048 reads one file of 25.7 MB.

V frames, h w rows and columns of the feature grid, C channels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threedrs import __version__
from threedrs.errors import DataError, StoreError
from threedrs.io.files import read_result, write_json
from threedrs.io.zarr_store import StoreReader, array_digest, create_store, write_array
from threedrs.scannet.layout import LEAVE_OUT
from threedrs.teachers.teacher import shorten
from threedrs.teachers.teacher_frames import OtherFrames, TeacherFrames, matched_frames

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
ARRAY = "features"


def damage_remedy(shard: Path) -> str:
    """Return what to do about a damaged store; undamaged scenes survive it."""
    return f"delete {shard / MANIFEST} and run `snakemake --cores all features`"


@dataclass(frozen=True, kw_only=True)
class SceneOrigin:
    """What one scene's features were computed from; equal origins mean equal features."""

    scene: str  # the scene's name
    frame_ids: tuple[int, ...]  # the scene store's frames, in its order
    input_sha256: str  # content hash of the scene store
    teacher: str  # the teacher's name
    weights_sha256: str  # hash of its weights
    settings_sha256: str  # hash of everything else that decides the values

    def attributes(self) -> dict[str, Any]:
        """Return the origin as attributes of the scene's group."""
        own = {**asdict(self), "frame_ids": list(self.frame_ids)}
        return {"format_version": FORMAT_VERSION, **own}


def write_scene(
    shard: Path,
    origin: SceneOrigin,
    features_VhwC: np.ndarray,
    *,
    input_size: tuple[int, int],
    seconds: float,
    frames: TeacherFrames | None = None,
) -> None:
    """Write one scene's group of float16 features, whole or not at all.

    ``input_size`` is height and width in pixels of the images that the teacher saw, and ``frames``
    are those of the features; None: those of the scene store.

    Raises:
        StoreError: the disk does not take it.
    """
    frames = frames or TeacherFrames(student=origin.frame_ids, teacher=origin.frame_ids)
    attributes = origin.attributes() | {
        "teacher_frames": list(frames.teacher),
        "frames_proven": frames.proven,
        "grid": list(features_VhwC.shape[1:3]),
        "input_size": list(input_size),
        "dtype": str(features_VhwC.dtype),
        "features_sha256": array_digest(features_VhwC),
        "seconds": round(seconds, 3),
        "threedrs_version": __version__,
    }
    # A frame is a chunk of noise to a compressor: it would take long and save nothing.
    with create_store(shard / origin.scene) as group:
        group.attrs.update(attributes)
        # repeated on the array, for readers that open only that
        write_array(
            group,
            ARRAY,
            features_VhwC,
            chunk_shape=(1, *features_VhwC.shape[1:]),
            compressed=False,
            attributes=attributes,
        )


def open_scene(shard: Path, scene: str) -> StoreReader:
    """Open one scene's group.

    Raises:
        StoreError: it is missing, damaged, or of another format version.
    """
    return StoreReader.open(
        shard / scene,
        kind="feature store",
        format_version=FORMAT_VERSION,
        remedy=damage_remedy(shard),
    )


def manifest_entry(reader: StoreReader) -> dict[str, Any]:
    """Return a written scene's row of the manifest: content alone.

    Nothing of when and how fast, so a store that is remade alike leaves later stages as they are.
    """
    return {
        "shape": list(reader.shape(ARRAY)),
        "features_sha256": reader.attributes["features_sha256"],
        "input_sha256": reader.attributes["input_sha256"],
        **TeacherFrames.of_entry(reader.attributes["frame_ids"], reader.attributes).to_entry(),
    }


def write_root(shard: Path) -> None:
    """Make ``shard`` a zarr group, so that zarr's tools can open the whole store."""
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"format_version": FORMAT_VERSION},
    }
    write_json(shard / "zarr.json", root)


class FeatureStore:
    """A finished shard, opened for reading; from :meth:`open`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path) -> "FeatureStore":
        """Open the shard at ``path``.

        Raises:
            StoreError: it is missing, unfinished, or of another format version.
        """
        if not (path / MANIFEST).is_file():
            fault = f"has no {MANIFEST}, so it is not a finished feature store"
            raise StoreError(
                f"{path}: {fault if path.is_dir() else 'there is no feature store here'}; "
                "check the name, or run `snakemake --cores all features`"
            )
        try:
            return cls(path, read_result(path / MANIFEST, FORMAT_VERSION, "features"))
        except DataError as error:
            raise StoreError(f"{error}; {damage_remedy(path)}") from error

    @property
    def scenes(self) -> list[str]:
        """The scenes that have features, in the shard's order."""
        return list(self.manifest["scenes"])

    @property
    def channels(self) -> int:
        """Channels C of the features."""
        return int(self.manifest["channels"])

    def frames(self, scene: str, frame_ids: Sequence[int] | None = None) -> TeacherFrames:
        """Return the frames of the scene store and those of ``scene``'s features.

        Raises:
            StoreError: they were made for other frames than ``frame_ids``, or in another order.
        """
        attributes = self._reader(scene).attributes
        frames = TeacherFrames.of_entry(attributes["frame_ids"], attributes)
        if frame_ids is not None and frames.student != tuple(frame_ids):
            raise StoreError(
                f"{self.path / scene}: features are of frames {shorten(frames.student)}, the scene "
                f"store holds {shorten(frame_ids)}; run `snakemake --cores all features`"
            )
        return frames

    def supervision(
        self, scene: str, frame_ids: Sequence[int], rule: OtherFrames
    ) -> tuple[np.ndarray, list[int]]:
        """Return the features of the supervised frames, (S, h, w, C) float16, and their indices.

        The indices count ``frame_ids``, which the scene store holds. ``rule`` is
        `teacher.other_frames`.

        Raises:
            StoreError: as `features` and `frames`.
            ConfigError: the rule does not fit the frames.
        """
        frames, features_VhwC = self.frames(scene, frame_ids), self.features(scene)
        if frames.teacher == frames.student:  # frames may repeat, each with features of its own
            return features_VhwC, list(range(len(frame_ids)))
        pairs = matched_frames(frames.student, frames.teacher, rule)
        return features_VhwC[[of_teacher for _, of_teacher in pairs]], [row for row, _ in pairs]

    def features(self, scene: str) -> np.ndarray:
        """Return ``scene``'s features, (V, h, w, C) float16; every chunk's crc32c is checked.

        Raises:
            StoreError: an unknown scene, a damaged chunk, or features other than the manifest says.
        """
        reader = self._reader(scene)
        if reader.attributes["features_sha256"] != self.entry(scene).get("features_sha256"):
            raise reader.error(f"{MANIFEST} describes other features of {scene}")
        return reader.read(ARRAY)

    def entry(self, scene: str) -> dict[str, Any]:
        """Return ``scene``'s row of the manifest. Raises StoreError where there is none."""
        if scene not in self.manifest["scenes"]:
            reasons = [
                row.get("reason")
                for row in self.manifest.get("skipped", [])
                if row["scene"] == scene
            ]
            why, remedy = "", "run `snakemake --cores all features`"
            if reasons:  # the same run would skip it again
                why = f" (skipped: {reasons[0]})"
                remedy = f"add its file to teacher.weights, or {LEAVE_OUT}"
            raise StoreError(f"{self.path}: holds no features of {scene}{why}; {remedy}")
        return self.manifest["scenes"][scene]

    def _reader(self, scene: str) -> StoreReader:
        self.entry(scene)
        return open_scene(self.path, scene)
