"""Teacher ``random``: features that know nothing of the scene, a control for `pointmap`.

If any regular target helped a student, this one would help as well: each patch of each frame has
its own features, of as many channels as those of `threedrs.teachers.pointmap`, and a student can
only learn them by heart. What a run with ``pointmap`` gains over a run with ``random`` comes from
what its features say.

Every channel is 1 or -1, drawn by scene, frame and patch and independently of the image. All
features have one length then, and those of two patches are close to orthogonal.
"""

import hashlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threedrs.scannet.geometry import IMAGE_SIZE
from threedrs.teachers.pointmap import CHANNELS, grid_rows
from threedrs.teachers.teacher import LAST, SceneFeatures, Teacher, TeacherSettings, job_needs

if TYPE_CHECKING:
    from threedrs.teachers.feature_store import SceneOrigin


def random_signs(seed: int, scene: str, frame: int, rows: int) -> np.ndarray:
    """Return (rows, rows, 53) float16 of 1 and -1 for a frame, which is known by its number."""
    count = rows * rows * CHANNELS
    # A hash gives the same bits on each machine. numpy promises that for no generator of its own
    # over its versions, and the features decide which trained models are stale.
    digest = hashlib.shake_128(f"{seed} {scene} {frame}".encode()).digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(digest, np.uint8), count=count)
    return (2.0 * bits - 1).reshape(rows, rows, CHANNELS).astype(np.float16)


class RandomExtractor:
    """A `FeatureExtractor` that reads nothing but the names of scenes and the numbers of frames."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.recipe: Mapping[str, Any] = {"channels": CHANNELS, "seed": seed}

    def identify(self, scene: str) -> str:
        """Return a constant: there are no weights."""
        return hashlib.sha256(b"random").hexdigest()

    def features(
        self, due: Mapping[Path, "SceneOrigin"], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene; see `FeatureExtractor`."""
        rows = grid_rows(grid)
        for origin in due.values():
            frames = [
                random_signs(self.seed, origin.scene, frame, rows) for frame in origin.frame_ids
            ]
            yield SceneFeatures(
                origin=origin,
                taps={LAST: np.stack(frames)},
                input_size=(IMAGE_SIZE, IMAGE_SIZE),
            )


def open_random(settings: TeacherSettings) -> RandomExtractor:
    """Return the extractor."""
    return RandomExtractor(settings.seed)


RANDOM = Teacher(
    name="random",
    description="signs drawn for each patch, whatever it shows: a control; no weights",
    channels=CHANNELS,
    open=open_random,
    needs=job_needs(gpu=0, mem_mb=2000, runtime=60),
)
