"""What shapes a scene store: the choice of frames, and how missing depth counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threedrs.errors import ConfigError
from threedrs.scannet.geometry import check_invalid_depth
from threedrs.scenes.coverage import PERCENT

STRATEGIES = ("uniform", *PERCENT)


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """Settings of the scene stage.

    Attributes:
        stride: every stride-th frame of the stream is a candidate.
        strategy: how frames are chosen from the candidates, one of `STRATEGIES`.
        count: frames a scene (V) of `uniform` and `coverage`; the paper uses 32.
        invalid_depth: ``reference``: pixels without depth count, at the camera centre;
            ``ignore``: they are left out of averages and masks.
    """

    stride: int = 10
    strategy: str = "uniform"
    count: int = 32
    invalid_depth: str = "reference"

    def __post_init__(self) -> None:
        for name in ("stride", "count"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"frames.{name}: must be a whole number from 1, not {value!r}")
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                f"frames.strategy: {self.strategy!r} is not known; choose one of "
                f"{', '.join(STRATEGIES)}"
            )
        check_invalid_depth(self.invalid_depth)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SceneSettings":
        """Return the settings in the config's sections ``frames`` and ``geometry``."""
        frames = config["frames"]
        return cls(
            stride=frames["stride"],
            strategy=frames["strategy"],
            count=frames["count"],
            invalid_depth=config["geometry"]["invalid_depth"],
        )
