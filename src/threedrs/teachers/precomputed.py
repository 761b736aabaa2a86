"""Teacher ``import``: features computed elsewhere, a file a scene, in the field's forms; export.

``<scene>.npz``, or ``<scene>/`` with one of ``vggt.npz``, ``flare.npz``, ``dinov2.npz`` and
``siglip2.npz``, holds the last layer of a model under ``feature`` or ``arr_0``, or several layers
under ``feature_l<number>``, of which the last is taken: (V, T, C) or (1, V, T, C), one row of T
tokens a frame. Patch tokens start at ``ps_idx`` (default 0) and go row by row, ``patch_grid`` of
them a row where the file says so. A scene without a file is skipped and listed in the shard's
manifest: published sets leave out scenes that no benchmark trains on.

Which frames the features are of is in ``frame_ids`` (V,), or is computed again
(`threedrs.teachers.teacher_frames`).

Files are untrusted: nothing pickled is read. Reading a scene of VGGT's costs 2.4 s and 540 MB.

V frames, T tokens of a frame, P patches, C channels.
"""

import re
import zipfile
import zlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import (
    atomic_file,
    check_npz,
    check_scene_name,
    sha256_of_file,
    sha256_of_json,
)
from threedrs.teachers.teacher import (
    FEATURE_FILES,
    GRID,
    LAST,
    SceneFeatures,
    SkippedSceneError,
    Teacher,
    TeacherSettings,
    Weights,
    job_needs,
    scene_files,
)
from threedrs.teachers.teacher_frames import TeacherFrames, evenly_spaced, folder_frames

if TYPE_CHECKING:
    from threedrs.teachers.feature_store import FeatureStore, SceneOrigin

KEYS = ("feature", "arr_0")
LAYER_KEY = re.compile(r"feature_l(\d{1,3})")
FACTS = ("ps_idx", "patch_grid", "frame_ids")
# A scene of VGGT's unpacks to 0.4 GB; 32 frames of 1,369 float64 tokens of 4,096 channels to 1.4.
MOST_BYTES = 8 * 2**30
PROPORTION_TOLERANCE = 0.05  # by which rounding to whole patches may change height / width


def patch_grid(patches: int, proportion: float) -> tuple[int, int] | None:
    """Return rows and columns of ``patches`` patches of an image of height / width ``proportion``.

    The factors nearest to the proportion; where none is near, a square (encoders that squeeze
    images to one); else None. 1,036 patches of a 4:3 image: 28 x 37.
    """
    pairs = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    best = min(pairs, key=lambda pair: abs(np.log(pair[0] / pair[1] / proportion)), default=None)
    if best and abs(best[0] / best[1] / proportion - 1) <= PROPORTION_TOLERANCE:
        return best
    side = int(patches**0.5 + 0.5)
    return (side, side) if patches and side * side == patches else None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureFile:
    """What a feature file holds."""

    features_VPC: np.ndarray  # the patch tokens, float32
    side: int | None  # rows and columns of the patches, where the file says so
    frame_ids: tuple[int, ...] | None  # the V frames, where the file says so
    # Whether a fork of the published script wrote it, which takes its frames from EmbodiedScan's
    # list.
    of_a_fork: bool


def read_features(path: Path) -> FeatureFile:
    """Return what a feature file holds.

    Raises:
        DataError: the file is unreadable, of another layout, or holds a value that is not finite;
            one line that names it.
    """
    try:
        check_npz(path, MOST_BYTES)
        with np.load(path, allow_pickle=False) as archive:
            key = _feature_key(path, archive.files)
            features = archive[key]
            facts = {name: archive[name] for name in FACTS if name in archive.files}
            of_a_fork = "patch_grid" in facts or key not in KEYS
    except DataError:
        raise
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: is not a readable npz file ({error}); fetch it again") from error
    if features.ndim == 4 and features.shape[0] == 1:
        features = features[0]
    if (
        features.ndim != 3
        or 0 in features.shape
        or features.dtype not in (np.float16, np.float32, np.float64)
    ):
        raise _wrong(
            path,
            f"{key} is {features.dtype} of shape {features.shape}; expected floating-point numbers "
            "of shape (frames, tokens, channels)",
        )
    frames, tokens, _ = features.shape
    start = _integer(facts.get("ps_idx", np.array(0)))
    if start is None or not 0 <= start < tokens:
        raise _wrong(path, f"ps_idx is not the index of one of a frame's {tokens} tokens")
    side = _integer(facts["patch_grid"]) if "patch_grid" in facts else None
    if "patch_grid" in facts and (side is None or side * side != tokens - start):
        raise _wrong(path, f"patch_grid is not the side of {tokens - start} patches")
    frame_ids = facts.get("frame_ids")
    if frame_ids is not None and (frame_ids.shape != (frames,) or frame_ids.dtype.kind not in "iu"):
        raise _wrong(
            path,
            f"frame_ids is {frame_ids.dtype} of shape {frame_ids.shape}; expected {frames} "
            "integers, the frames of the features",
        )
    features_VPC = features[:, start:].astype(np.float32)
    for index, values in enumerate(features_VPC):
        # One comparison finds all: a NaN fails it too, as does what float16 cannot hold.
        if not np.abs(values).max(initial=0) <= np.finfo(np.float16).max:
            raise _wrong(path, f"the features of frame {index} (from 0) are not finite as float16")
    return FeatureFile(
        features_VPC=features_VPC,
        side=side,
        frame_ids=None if frame_ids is None else tuple(frame_ids.tolist()),
        of_a_fork=of_a_fork,
    )


def _wrong(path: Path, problem: str) -> DataError:
    return DataError(f"{path}: {problem}; compute the file again")


def _feature_key(path: Path, names: list[str]) -> str:
    """Return the name of the array that holds the last layer."""
    layers = {name: int(found[1]) for name in names if (found := LAYER_KEY.fullmatch(name))}
    # A file may hold the last layer twice, whole and by layer. The whole one is the published form.
    plain = [key for key in KEYS if key in names]
    if not plain and not layers:
        raise _wrong(
            path,
            f"holds {', '.join(names) or 'nothing'}; expected the features under "
            f"{' or '.join(KEYS)}, or by layer under feature_l<number>",
        )
    return plain[0] if plain else max(layers, key=lambda name: layers[name])


def _integer(value: np.ndarray) -> int | None:
    return value.item() if value.size == 1 and value.dtype.kind in "iu" else None


def exported_file(store: "FeatureStore", scene: str, folder: Path) -> Path:
    """Return the file that a scene's features are exported to.

    ``<folder>/<scene>/<teacher>.npz`` where published files bear the teacher's name, else
    ``<folder>/<scene>.npz``. An export that was stopped has written some of them.

    Raises:
        DataError: the folder holds other features of the scene, which may have been downloaded; or
            the scene's name is none.
    """
    check_scene_name(scene, str(store.path))
    teacher = str(store.manifest.get("teacher")).removesuffix("-tiny")
    named = teacher in FEATURE_FILES
    file = folder / scene / f"{teacher}.npz" if named else folder / f"{scene}.npz"
    # A folder with two files of a scene cannot be imported, so another teacher's counts as well.
    there = scene_files(folder, scene)
    if there and not (there == [file] and _holds(file, _exported_arrays(store, scene))):
        raise DataError(
            f"{there[0]}: is there already, with other features; remove it, or name another folder"
        )
    return file


def _holds(file: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    try:
        check_npz(file, MOST_BYTES)
        with np.load(file, allow_pickle=False) as found:
            return {*found} == {*arrays} and all(
                found[name].dtype == array.dtype and np.array_equal(found[name], array)
                for name, array in arrays.items()
            )
    except (DataError, OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return False  # it is not a file of ours that is whole


def export_features(store: "FeatureStore", scene: str, file: Path) -> None:
    """Write a scene's features as a feature file.

    Raises:
        StoreError: the store is damaged, or has no such scene.
    """
    with atomic_file(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **_exported_arrays(store, scene))


def _exported_arrays(store: "FeatureStore", scene: str) -> dict[str, Any]:
    """Return what a feature file of a scene holds.

    Pooled features (V,14,14,C) keep their half precision under the forks' names; a teacher's own
    grid becomes the published script's float32. Special tokens are not in a store, so ``ps_idx``
    is 0.
    """
    frames, features_VhwC = store.frames(scene), store.features(scene)
    pooled = features_VhwC.shape[1:3] == (GRID, GRID)
    features_VPC = features_VhwC.reshape(len(features_VhwC), -1, features_VhwC.shape[-1])
    arrays: dict[str, Any] = {
        "feature": features_VPC[None] if pooled else features_VPC[None].astype(np.float32),
        "ps_idx": np.array(0),
    }
    if frames.proven:
        arrays["frame_ids"] = np.array(frames.teacher)
        # A file of a fork takes its frames from a list that these features may not be of. So it
        # looks like one only where it says its frames itself.
        if pooled:
            arrays |= {"pooled": np.array(True), "patch_grid": np.array(GRID)}
    return arrays


@dataclass(frozen=True)
class ImportExtractor:
    """A `FeatureExtractor` that reads one feature file a scene."""

    folder: Path  # of the files
    posed_images: Path | None  # folder of the scans' exported images, where there is one
    # Scene -> EmbodiedScan's frames, where the configuration names its lists.
    candidates: Mapping[str, list[int]]
    recipe: ClassVar[Mapping[str, Any]] = {"proportion_tolerance": PROPORTION_TOLERANCE}

    def identify(self, scene: str) -> str:
        """Return the SHA-256 of the scene's file and of what tells its frames.

        Raises:
            SkippedSceneError: there is no file.
            DataError: there are several.
        """
        # The lists belong to it: a folder that gains an image tells of other frames.
        return sha256_of_json([sha256_of_file(self._file(scene)), *self._frame_lists(scene)])

    def _file(self, scene: str) -> Path:
        files = scene_files(self.folder, scene)
        if not files:
            raise SkippedSceneError(
                f"{self.folder} has neither {scene}.npz nor one of "
                f"{', '.join(f'{name}.npz' for name in FEATURE_FILES)} in {scene}/"
            )
        if len(files) > 1:
            raise DataError(
                f"{files[0]}: {files[1].relative_to(self.folder)} stands beside it; keep the "
                "features of one teacher in a folder, and move the other file elsewhere"
            )
        return files[0]

    def _frame_lists(self, scene: str) -> tuple[list[int], list[int]]:
        """Return the frames of the scan's folder and of EmbodiedScan's list, empty without one."""
        folder = self.posed_images and self.posed_images / scene
        return folder_frames(folder) if folder else [], self.candidates.get(scene, [])

    def features(
        self, due: Mapping[Path, "SceneOrigin"], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene; see `FeatureExtractor`."""
        import torch

        from threedrs.io.images import ImageError, image_size
        from threedrs.scenes.store import SceneStore
        from threedrs.teachers.image_extractor import pool_features

        for path, origin in due.items():
            file = self._file(origin.scene)
            found = read_features(file)
            count, patches = found.features_VPC.shape[:2]
            in_folder, listed = self._frame_lists(origin.scene)
            frames = found.frame_ids or evenly_spaced(
                listed if found.of_a_fork else in_folder, count
            )
            # Without a list there is no proof. The count is all that can be compared then.
            if frames is None and count != len(origin.frame_ids):
                raise DataError(
                    f"{file}: holds {count} frames, the scene store {len(origin.frame_ids)}, and "
                    "nothing says which; put the scan's exported images into data.posed_images, "
                    "or choose as many frames (frames.count)"
                )
            try:
                width, height = image_size(SceneStore.open(path).jpegs()[0])
            except ImageError as error:
                raise DataError(
                    f"{path}: its first image {error}; run `threedrs verify --repair`"
                ) from error
            shape = (found.side, found.side) if found.side else patch_grid(patches, height / width)
            if shape is None:
                raise DataError(
                    f"{file}: {patches} patches a frame fit no grid of a {width}x{height} image; "
                    "ps_idx must say where the patch tokens start"
                )
            pooled, _ = pool_features(torch.from_numpy(found.features_VPC), shape, grid=grid)
            yield SceneFeatures(
                origin=origin,
                taps={LAST: pooled.numpy()},
                input_size=(height, width),
                frames=TeacherFrames(
                    student=origin.frame_ids,
                    teacher=frames or origin.frame_ids,
                    proven=frames is not None,
                ),
            )


def open_import(settings: TeacherSettings) -> ImportExtractor:
    """Return the extractor."""
    from threedrs.scannet.embodiedscan import read_infos_files

    assert settings.weights is not None  # `open_extractor` has looked
    infos = read_infos_files(settings.candidates)
    candidates = {scene: found.frames for scene, found in infos.items()}
    return ImportExtractor(settings.weights, settings.posed_images, candidates)


IMPORT = Teacher(
    name="import",
    description="features computed elsewhere, one npz a scene",
    channels=None,
    open=open_import,
    needs=job_needs(gpu=0, mem_mb=8000, runtime=240),
    weights=Weights(
        kind="scenes",
        what="the folder of the feature files, one npz a scene",
        remedy="docs/TEACHERS.md says what it holds; teacher.name vggt makes features here",
    ),
)
