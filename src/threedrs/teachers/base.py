"""What a teacher is to the extraction of a shard: something that turns scene stores into features.

S frames, h w rows and columns of the stored grid, C channels.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from threedrs.teachers.store import SceneOrigin


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneFeatures:
    """One scene's features, (S, h, w, C) float16, finite.

    ``input_size``: height and width in pixels of the pictures that the teacher saw.
    """

    origin: SceneOrigin
    features_ShwC: np.ndarray
    input_size: tuple[int, int]


class SkippedSceneError(Exception):
    """The teacher has nothing for a scene, which is no fault; says why in one line."""


class Source(Protocol):
    """A teacher, ready to work.

    Attributes:
        recipe: JSON values that, beside weights and grid, decide the features.
    """

    recipe: Mapping[str, Any]

    def identify(self, scene: str) -> str:
        """Return the SHA-256 of the weights (or files) that the scene's features come from.

        Raises:
            SkippedSceneError: the teacher has nothing for this scene.
            ThreedrsError: the weights are missing or unreadable.
        """
        ...

    def features(
        self, due: Mapping[Path, SceneOrigin], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene store of ``due``, in its order.

        Raises:
            ThreedrsError: a scene cannot be read or done; names it.
        """
        ...
