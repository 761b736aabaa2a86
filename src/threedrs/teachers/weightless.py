"""Teachers without weights: ``pointmap``, the scene's own geometry, and its control ``random``.

``pointmap`` has 53 channels for each patch of 27x27 pixels (14x14 with ``teacher.grid: full``) of
the top-left 378x378, from the pixels with depth:

    0..47   Fourier features of the mean world coordinate: for x, y, z in turn, sine then cosine of
            2 pi c / L at the wavelengths L = 16, 8, 4, ..., 0.125 m, divided by sqrt(24)
    48..50  surface normal in world coordinates, towards the camera: the direction of least spread
            of the patch's points; unit length
    51      spread of depth: s / (s + 0.1 m) of its standard deviation s
    52      1 where fewer than three pixels have depth, and then everything else is 0

Each group has length one (the spread at most), so the three count alike in a loss that compares
directions. Costs about 20 ms a frame on one core and the memory of one scene's coordinates (57 MB
at 32 frames).

``random`` has features that know nothing of the scene. If any regular target helped a student,
this one would help as well: each patch of each frame has its own features, of as many channels, and
a student can only learn them by heart. What a run with ``pointmap`` gains over a run with
``random`` comes from what its features say. Every channel is 1 or -1, drawn by scene, frame and
patch and independently of the image. All features have one length then, and those of two patches
are close to orthogonal.

V frames, h w rows and columns of patches, K points of a patch.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threedrs.io.files import sha256_of_json
from threedrs.scannet.geometry import FINE_GRID, IMAGE_SIZE, SIDE
from threedrs.teachers.teacher import GRID, LAST, SceneFeatures, Teacher, TeacherSettings, job_needs

if TYPE_CHECKING:
    from threedrs.scenes.store import SceneStore
    from threedrs.teachers.feature_store import SceneOrigin

WAVELENGTHS = 16.0 * 0.5 ** np.arange(8)  # metres
HALF_SPREAD = 0.1  # metres of standard deviation of depth that count as 0.5
CHANNELS = 2 * 3 * len(WAVELENGTHS) + 3 + 1 + 1
FEWEST_POINTS = 3  # that span a plane


def fourier_features(coordinates_N3: np.ndarray) -> np.ndarray:
    """Return (N, 48) of world coordinates in metres; each row has length one."""
    angles_N3L = 2 * np.pi * coordinates_N3[:, :, None] / WAVELENGTHS
    features_N3FL = np.stack((np.sin(angles_N3L), np.cos(angles_N3L)), axis=2)
    return features_N3FL.reshape(len(coordinates_N3), -1) / np.sqrt(3 * len(WAVELENGTHS))


def patch_descriptors(
    points_NK3: np.ndarray, depth_NK: np.ndarray, camera_3: np.ndarray
) -> np.ndarray:
    """Return the features of patches, (N, 53) float64.

    Points are world coordinates of the patches' pixels, and all lengths are in metres. A depth of 0
    is no measurement. ``camera_3`` is the camera's centre.
    """
    valid_NK = depth_NK > 0
    count_N = valid_NK.sum(axis=1)
    share_NK = valid_NK / np.maximum(count_N, 1)[:, None]
    mean_N3 = np.einsum("nk,nkc->nc", share_NK, points_NK3)
    centred_NK3 = points_NK3 - mean_N3[:, None]
    covariance_N33 = np.einsum("nk,nkc,nkd->ncd", share_NK, centred_NK3, centred_NK3, optimize=True)
    normal_N3 = np.linalg.eigh(covariance_N33)[1][:, :, 0]  # eigenvalues come in rising order
    # An eigenvector has two signs. The one towards the camera is on the surface's visible side.
    away_N = np.einsum("nc,nc->n", normal_N3, mean_N3 - camera_3) > 0
    normal_N3 = np.where(away_N[:, None], -normal_N3, normal_N3)
    depth_N = (share_NK * depth_NK).sum(axis=1)
    spread_N = np.sqrt((share_NK * (depth_NK - depth_N[:, None]) ** 2).sum(axis=1))
    features_NC = np.zeros((len(points_NK3), CHANNELS))
    features_NC[:, :-5] = fourier_features(mean_N3)
    features_NC[:, -5:-2] = normal_N3
    features_NC[:, -2] = spread_N / (spread_N + HALF_SPREAD)
    # Through fewer points there are many planes, so the normal would be noise.
    unknown_N = count_N < FEWEST_POINTS
    features_NC[unknown_N] = 0
    features_NC[unknown_N, -1] = 1
    return features_NC


def frame_descriptors(
    points_HW3: np.ndarray, depth_HW: np.ndarray, camera_3: np.ndarray, rows: int
) -> np.ndarray:
    """Return the features of one frame's ``rows`` x ``rows`` patches, (rows, rows, 53) float64.

    Points (384, 384, 3) are in metres, depth (384, 384) is uint16 in millimetres, and ``rows`` is
    14 or 27; see `patch_descriptors`.
    """
    patch = SIDE // rows

    def patches(values_HWD: np.ndarray) -> np.ndarray:
        cut = values_HWD[:SIDE, :SIDE].reshape(rows, patch, rows, patch, -1)
        return cut.transpose(0, 2, 1, 3, 4).reshape(rows * rows, patch * patch, -1)

    points_NK3 = patches(points_HW3.astype(np.float64))
    depth_NK = patches(depth_HW[..., None] / 1000.0)[..., 0]
    return patch_descriptors(points_NK3, depth_NK, camera_3).reshape(rows, rows, CHANNELS)


def random_signs(seed: int, scene: str, frame: int, rows: int) -> np.ndarray:
    """Return (rows, rows, 53) float16 of 1 and -1 for a frame, which is known by its number."""
    count = rows * rows * CHANNELS
    # A hash gives the same bits on each machine. numpy promises that for no generator of its own
    # over its versions, and the features decide which trained models are stale.
    digest = hashlib.shake_128(f"{seed} {scene} {frame}".encode()).digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(digest, np.uint8), count=count)
    return (2.0 * bits - 1).reshape(rows, rows, CHANNELS).astype(np.float16)


@dataclass(frozen=True)
class WeightlessExtractor:
    """A `FeatureExtractor` that reads nothing but scene stores.

    ``compute`` takes a store and the grid's rows to features (V, rows, rows, C).
    """

    recipe: Mapping[str, Any]
    compute: "Callable[[SceneStore, int], np.ndarray]"

    def identify(self, scene: str) -> str:
        """Return a constant: there are no weights."""
        return sha256_of_json(None)

    def features(
        self, due: Mapping[Path, "SceneOrigin"], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene; see `FeatureExtractor`."""
        from threedrs.scenes.store import SceneStore

        rows = GRID if grid == GRID else FINE_GRID
        for path, origin in due.items():
            features_VhwC = self.compute(SceneStore.open(path), rows).astype(np.float16)
            yield SceneFeatures(
                origin=origin, taps={LAST: features_VhwC}, input_size=(IMAGE_SIZE, IMAGE_SIZE)
            )


def open_pointmap(settings: TeacherSettings) -> WeightlessExtractor:
    """Return the extractor of ``pointmap``, which has no settings but the grid."""

    def descriptors(store: "SceneStore", rows: int) -> np.ndarray:
        frames = zip(store.coordinates(), store.depth(), store.poses(), strict=True)
        return np.stack([frame_descriptors(p, d, pose[:3, 3], rows) for p, d, pose in frames])

    return WeightlessExtractor({"channels": CHANNELS, "half_spread": HALF_SPREAD}, descriptors)


def open_random(settings: TeacherSettings) -> WeightlessExtractor:
    """Return the extractor of ``random``."""

    def signs(store: "SceneStore", rows: int) -> np.ndarray:
        frames = store.frame_ids
        return np.stack([random_signs(settings.seed, store.scene, frame, rows) for frame in frames])

    return WeightlessExtractor({"channels": CHANNELS, "seed": settings.seed}, signs)


POINTMAP = Teacher(
    name="pointmap",
    description="position, surface normal and depth spread of each patch; no weights",
    channels=CHANNELS,
    open=open_pointmap,
    needs=job_needs(gpu=0, mem_mb=4000, runtime=120),
)
RANDOM = Teacher(
    name="random",
    description="signs drawn for each patch, whatever it shows: a control; no weights",
    channels=CHANNELS,
    open=open_random,
    needs=job_needs(gpu=0, mem_mb=2000, runtime=60),
)
