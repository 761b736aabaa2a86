"""Settings of the student and of the 3D supervision, read from the resolved configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from threedrs.errors import CheckpointError, ConfigError, ThreedrsError, raise_all
from threedrs.models.backbones.registry import DEFAULT_NAME, find_family
from threedrs.models.backbones.sizes import SIZES

ATTENTIONS = ("auto", "sdpa", "flash")
COORDINATE_DTYPES = ("float32", "bfloat16", "float16")
LOSSES = ("l2", "cosine", "both")
# The linear layers of a language-model layer, by their usual names.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _choice(key: str, value: Any, valid: tuple[str, ...]) -> Iterator[ConfigError]:
    if value not in valid:
        yield ConfigError(f"{key}: {value!r} is not available; valid: {', '.join(valid)}")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which student to build or load.

    ``path`` is a checkpoint folder in its family's published layout, pretrained or trained. Its own
    config.json gives the architecture, and ``seed`` is that of heads which it lacks. Without it,
    ``size: tiny`` and ``small`` are built with random weights from ``seed``, and so is ``7b``
    if ``random_weights`` asks for that. ``name`` and ``grid`` (tokens a side of a frame) may be
    None where a checkpoint of ours holds them.
    """

    name: str | None = None
    size: str = "tiny"
    path: Path | None = None
    grid: int | None = None
    attention: str = "auto"
    random_weights: bool = False
    coordinate_dtype: str = "float32"
    seed: int = 42

    def __post_init__(self) -> None:
        raise_all(self._problems())

    def _problems(self) -> Iterator[ThreedrsError]:
        try:
            family = None if self.name is None else find_family(self.name)
        except ConfigError as error:
            family = None
            yield error
        yield from _choice("model.size", self.size, SIZES)
        yield from _choice("model.attention", self.attention, ATTENTIONS)
        yield from _choice("geometry.coordinate_dtype", self.coordinate_dtype, COORDINATE_DTYPES)
        if family is not None and self.grid is not None and self.grid not in family.grids:
            side, valid = family.grids[0], ", ".join(map(str, sorted(family.grids)))
            yield ConfigError(
                f"model.grid: {self.name} has a {side}x{side} grid; set it to {side}"
                if len(family.grids) == 1
                else f"model.grid: {self.grid!r} is not available; valid: {valid}"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            yield ConfigError(f"train.seed: {self.seed!r} is not a whole number from 0 up")
        if self.random_weights and self.path is not None:
            yield ConfigError(
                f"model.random_weights: model.path names a checkpoint, {self.path}; set one of them"
            )
        if self.size == "7b" and self.path is None and not self.random_weights:
            name = self.name if self.name and family else DEFAULT_NAME
            hub = find_family(name).checkpoints[name]
            yield CheckpointError(
                f"model.path: size 7b needs a checkpoint folder; fetch {hub.repository} (about "
                f"{hub.gigabytes} GB, {hub.licence}) from the Hugging Face Hub into e.g. "
                f"data/models/{hub.repository.rpartition('/')[2]} and set model.path to that "
                "folder (or, to measure speed only, model.random_weights: true)"
            )

    @property
    def from_scratch(self) -> bool:
        """Whether the student is one that starts with random weights: tiny or small."""
        return self.path is None and self.size != "7b"

    @property
    def frame_tokens(self) -> int | None:
        """The visual tokens of a frame; None where only the checkpoint says."""
        if self.name is None:
            return None
        family = find_family(self.name)
        if self.grid is None and self.path is not None and len(family.grids) > 1:
            return None
        return family.visual_grid(self.grid or family.grids[0]).frame_tokens

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelSettings":
        """Return the settings of a resolved run configuration."""
        model = config["model"]
        return cls(
            name=model["name"],
            size=model["size"],
            path=None if model["path"] is None else Path(model["path"]),
            grid=model.get("grid"),
            random_weights=model.get("random_weights", False),
            attention=model["attention"],
            coordinate_dtype=config["geometry"]["coordinate_dtype"],
            seed=config["train"]["seed"],
        )


@dataclass(frozen=True, kw_only=True)
class SupervisionSettings:
    """The 3D representation loss: its weight, its form, and the hidden states it is put on.

    ``layer`` is ``last`` (after the final norm) or the index of a language-model layer, 0 the
    first, whose raw output is taken; the index of the last layer means ``last``.
    """

    weight: float = 1.0
    loss: str = "l2"
    layer: str | int = "last"

    def __post_init__(self) -> None:
        raise_all(self._problems())

    def _problems(self) -> Iterator[ConfigError]:
        yield from _choice("supervision.loss", self.loss, LOSSES)
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        if not number or not 0 <= self.weight < float("inf"):
            yield ConfigError(f"supervision.weight: {self.weight!r} is not a number from 0 up")
        index = isinstance(self.layer, int) and not isinstance(self.layer, bool)
        if self.layer != "last" and not (index and int(self.layer) >= 0):
            yield ConfigError(
                f"supervision.layer: {self.layer!r} is not valid; "
                "valid: last, or a layer index from 0 up"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SupervisionSettings":
        """Return the settings of a resolved run configuration."""
        section = config["supervision"]
        return cls(weight=section["weight"], loss=section["loss"], layer=section["layer"])


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """``train.lora``: low-rank adapters on linear layers of the language model.

    Attributes:
        rank: of the two matrices, r.
        alpha: their product counts alpha / r times.
        dropout: of what enters them, in training.
        targets: the layers that get them, of `LORA_TARGETS`.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self) -> None:
        raise_all(self._problems())

    def _problems(self) -> Iterator[ConfigError]:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            yield ConfigError(f"train.lora.rank: {self.rank!r} is not a whole number from 1 up")
        if not _is_number(self.alpha) or self.alpha <= 0:
            yield ConfigError(f"train.lora.alpha: {self.alpha!r} is not a number above 0")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            yield ConfigError(f"train.lora.dropout: {self.dropout!r} is not a number from 0 to 1")
        if not self.targets or not set(self.targets) <= set(LORA_TARGETS):
            yield ConfigError(
                f"train.lora.targets: {list(self.targets)} is not valid; "
                f"one or more of: {', '.join(LORA_TARGETS)}"
            )

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "LoraSettings":
        """Return the settings of ``train.lora``.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names[:2] if name not in section]
        unknown = [key for key in section if key not in names]
        if missing or unknown:
            raise ConfigError(
                f"train.lora: missing keys {missing}, unknown keys {unknown}; "
                f"valid: {', '.join(names)}"
            )
        named = section.get("targets", LORA_TARGETS)
        known = [target for target in LORA_TARGETS if target in named]
        targets = (*known, *(target for target in named if target not in LORA_TARGETS))
        return cls(**{**section, "targets": targets})

    def to_json(self) -> dict[str, Any]:
        """Return every setting as JSON values, the same for the same adapters."""
        return {**asdict(self), "alpha": float(self.alpha), "targets": list(self.targets)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
