"""What decides a teacher's features: the config section ``teacher``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import ConfigError
from threedrs.teachers.registry import get_teacher, weights_of

GRID = 14  # rows and columns of the pooled grid


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """The settings of one teacher.

    Attributes:
        name: a teacher of the registry.
        weights: its checkpoint file, model folder or folder of npz files; see the registry.
        seed: of the random weights of the ``-tiny`` teachers.
        grid: 14: pooled to 14x14; "full": the teacher's own grid.
    """

    name: str
    weights: Path | None = None
    seed: int = 0
    grid: int | str = GRID

    def __post_init__(self) -> None:
        get_teacher(self.name)
        if self.grid not in (GRID, "full"):
            raise ConfigError(f"teacher.grid {self.grid!r} is unknown; choose one of 14, full")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"teacher.seed {self.seed!r} must be an integer of at least 0")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TeacherSettings":
        """Return the settings of the config's section ``teacher``."""
        section = config["teacher"]
        return cls(
            name=section["name"],
            weights=weights_of(section, section["name"]),
            seed=section.get("seed", 0),
            grid=section.get("grid", GRID),
        )
