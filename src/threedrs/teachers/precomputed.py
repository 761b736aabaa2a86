"""Teacher ``import``: features computed elsewhere, one ``<scene>.npz`` a scene.

The layout is that of the reference's own feature files: the last layer of a model under the key
``feature`` or ``arr_0``, (V, T, C) or (1, V, T, C), one row of T tokens a frame, in the order of
the scene store's frames; patch tokens start at ``ps_idx`` (default 0) and go row by row. An
optional ``frame_ids`` (V,) is compared with the scene store's. A scene without a file is skipped
and listed in the shard's manifest: published sets leave out scenes that no benchmark trains on.

Files are untrusted: nothing pickled is read. Reading a scene of VGGT's costs 2.4 s and 540 MB.

V frames, T tokens of a frame, P patches, R c rows and columns of patches, C channels.
"""

import io
import zipfile
import zlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threedrs.errors import CheckpointError, DataError
from threedrs.io.files import check_npz, sha256_of_file
from threedrs.teachers.teacher import (
    LAST,
    SceneFeatures,
    SkippedSceneError,
    Teacher,
    TeacherSettings,
    Weights,
    job_needs,
    shorten,
)

if TYPE_CHECKING:
    from threedrs.teachers.feature_store import SceneOrigin

KEYS = ("feature", "arr_0")
# A scene of VGGT's unpacks to 0.4 GB; 32 frames of 1,369 float64 tokens of 4,096 channels to 1.4.
MOST_BYTES = 8 * 2**30
PROPORTION_TOLERANCE = 0.05  # by which rounding to whole patches may change height / width


def patch_grid(patches: int, proportion: float) -> tuple[int, int] | None:
    """Return rows and columns of ``patches`` patches of a picture of height / width ``proportion``.

    The factors nearest to the proportion; where none is near, a square (encoders that squeeze
    pictures to one); else None. 1,036 patches of a 4:3 picture: 28 x 37.
    """
    pairs = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    best = min(pairs, key=lambda pair: abs(np.log(pair[0] / pair[1] / proportion)), default=None)
    if best and abs(best[0] / best[1] / proportion - 1) <= PROPORTION_TOLERANCE:
        return best
    side = int(patches**0.5 + 0.5)
    return (side, side) if patches and side * side == patches else None


def read_features(path: Path, frame_ids: tuple[int, ...]) -> np.ndarray:
    """Return a file's patch tokens, (V, P, C) float32.

    Raises:
        DataError: the file is unreadable, of another layout, of other frames, or holds a value that
            is not finite; one line that names it.
    """
    try:
        check_npz(path, MOST_BYTES)
        with np.load(path, allow_pickle=False) as archive:
            key = next((key for key in KEYS if key in archive.files), None)
            if key is None:
                raise DataError(
                    f"{path}: holds {', '.join(archive.files) or 'nothing'}; expected the features "
                    f"under {' or '.join(KEYS)}"
                )
            features = archive[key]
            start = archive["ps_idx"] if "ps_idx" in archive.files else np.array(0)
            stored_ids = archive["frame_ids"] if "frame_ids" in archive.files else None
    except DataError:
        raise
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: is not a readable npz file ({error}); fetch it again") from error
    if features.ndim == 4 and features.shape[0] == 1:
        features = features[0]
    if features.ndim != 3 or features.dtype not in (np.float16, np.float32, np.float64):
        raise DataError(
            f"{path}: {key} is {features.dtype} of shape {features.shape}; expected floating-point "
            "numbers of shape (frames, tokens, channels)"
        )
    if start.size != 1 or start.dtype.kind not in "iu" or not 0 <= start.item() < features.shape[1]:
        raise DataError(f"{path}: ps_idx is no token of the {features.shape[1]} of a frame")
    if len(features) != len(frame_ids):
        raise DataError(
            f"{path}: holds {len(features)} frames, the scene store {len(frame_ids)}; both must "
            "come from the same choice of frames (frames.count, frames.strategy)"
        )
    if stored_ids is not None and stored_ids.tolist() != list(frame_ids):
        raise DataError(
            f"{path}: its frame_ids {shorten(stored_ids.tolist())} are not the scene store's "
            f"{shorten(frame_ids)}; choose the same frames (frames.strategy, frames.stride)"
        )
    features_VPC = features[:, start.item() :].astype(np.float32)
    for frame, values in zip(frame_ids, features_VPC, strict=True):
        # a NaN fails the comparison too
        if not np.abs(values).max(initial=0) <= np.finfo(np.float16).max:
            raise DataError(
                f"{path}: the features of frame {frame} are not finite as float16; compute the "
                "file again"
            )
    return features_VPC


class ImportExtractor:
    """A `FeatureExtractor` that reads one npz file a scene from ``folder``."""

    recipe: Mapping[str, Any] = {"proportion_tolerance": PROPORTION_TOLERANCE}

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def identify(self, scene: str) -> str:
        """Return the SHA-256 of the scene's file. Raises SkippedSceneError where there is none."""
        path = self.folder / f"{scene}.npz"
        if not path.is_file():
            raise SkippedSceneError(f"{path} does not exist")
        return sha256_of_file(path)

    def features(
        self, due: Mapping[Path, "SceneOrigin"], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene; see `FeatureExtractor`."""
        import torch
        from PIL import Image

        from threedrs.scenes.store import SceneStore
        from threedrs.teachers.image_decoding import STORED_FORMATS
        from threedrs.teachers.image_extractor import pool_features

        for path, origin in due.items():
            file = self.folder / f"{origin.scene}.npz"
            features_VPC = read_features(file, origin.frame_ids)
            first = io.BytesIO(SceneStore.open(path).jpegs()[0])
            try:
                with Image.open(first, formats=STORED_FORMATS) as picture:
                    width, height = picture.size
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                raise DataError(f"{path}: its first picture is unreadable ({error})") from error
            patches = patch_grid(features_VPC.shape[1], height / width)
            if patches is None:
                raise DataError(
                    f"{file}: {features_VPC.shape[1]} patches a frame fit no grid of a "
                    f"{width}x{height} picture; ps_idx must say where the patch tokens start"
                )
            pooled, _ = pool_features(torch.from_numpy(features_VPC), patches, grid=grid)
            yield SceneFeatures(
                origin=origin, taps={LAST: pooled.numpy()}, input_size=(height, width)
            )


def open_import(settings: TeacherSettings) -> ImportExtractor:
    """Return the extractor. Raises CheckpointError where ``teacher.weights`` is not a folder."""
    if settings.weights is None or not settings.weights.is_dir():
        raise CheckpointError(
            f"teacher import: teacher.weights is {settings.weights}, not a folder; set it to the "
            "folder of the npz files, one <scene>.npz each (docs/TEACHERS.md has their layout)"
        )
    return ImportExtractor(settings.weights)


IMPORT = Teacher(
    name="import",
    description="features computed elsewhere, one npz a scene",
    channels=None,
    open=open_import,
    needs=job_needs(gpu=0, mem_mb=8000, runtime=240),
    weights=Weights(kind="scenes", what="the folder of the npz files, one <scene>.npz each"),
)
