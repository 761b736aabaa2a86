"""What shapes a scene store: the choice of frames, and how missing depth counts."""

from collections.abc import Mapping
from typing import Any

from threedrs.config.schema import Frames, InvalidDepth


class SceneSettings(Frames):
    """The section `frames`, and how pixels without depth count."""

    invalid_depth: InvalidDepth = "reference"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SceneSettings":
        """Return the settings in the config's sections ``frames`` and ``geometry``."""
        return cls(**config["frames"], invalid_depth=config["geometry"]["invalid_depth"])
