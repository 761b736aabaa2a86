"""Settings of the student, joined from the sections of a run that shape it, and of inference."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from threedrs.config.schema import (
    Attention,
    BoxSet,
    Control,
    CoordinateDtype,
    Decoding,
    Model,
    ModelName,
    ModelSize,
    Prompt,
)
from threedrs.config.section import Section
from threedrs.config.value_types import FilePath, NaturalInt, PositiveInt
from threedrs.errors import CheckpointError, ConfigError, DataError, ThreedrsError, raise_all
from threedrs.io.files import read_json
from threedrs.models.backbones.known_backbones import DEFAULT_NAME, find_family
from threedrs.models.checkpoint.folder import read_config


class ModelSettings(Model):
    """Which student to build or load: the section `model`, and what else shapes it.

    ``seed`` is that of random weights, of heads too that the checkpoint in ``path`` lacks. ``name``
    and ``grid`` (tokens a side of a frame) may be None where the checkpoint says them. What is not
    given is a tiny student's, and not the demo's.
    """

    name: ModelName | None = None  # type: ignore[assignment]
    size: ModelSize = "tiny"
    path: FilePath | None = None
    coordinate_dtype: CoordinateDtype = "float32"
    seed: NaturalInt = 42

    @model_validator(mode="after")
    def _check(self) -> "ModelSettings":
        raise_all(self._problems())
        return self

    def _problems(self) -> Iterator[ThreedrsError]:
        family = None if self.name is None else find_family(self.name)
        if family is not None and self.grid is not None and self.grid not in family.grids:
            side, valid = family.grids[0], ", ".join(map(str, sorted(family.grids)))
            yield ConfigError(
                f"model.grid: {self.name} has a {side}x{side} grid; set it to {side}"
                if len(family.grids) == 1
                else f"model.grid: {self.grid!r} is not available; valid: {valid}"
            )
        if self.random_weights and self.path is not None:
            yield ConfigError(
                f"model.random_weights: model.path names a checkpoint, {self.path}; set one of them"
            )
        if self.size == "7b" and self.path is None and not self.random_weights:
            name = self.name or DEFAULT_NAME
            hub = find_family(name).checkpoints[name]
            yield CheckpointError(
                f"model.path: size 7b needs a checkpoint folder; fetch {hub.repository} (about "
                f"{hub.gigabytes} GB, {hub.licence}) from the Hugging Face Hub into e.g. "
                f"data/models/{hub.repository.rpartition('/')[2]} and set model.path to that "
                "folder (or, to measure speed only, model.random_weights: true)"
            )

    @property
    def from_scratch(self) -> bool:
        """Whether the student starts with random weights, in any size but 7b."""
        return self.path is None and self.size != "7b"

    @property
    def frame_tokens(self) -> int | None:
        """The visual tokens of a frame; None where only the checkpoint says."""
        if self.name is None:
            return None
        family = find_family(self.name)
        side = self.known_grid
        if side is None and self.path is not None and len(family.grids) > 1:
            return None
        return family.visual_grid(side or family.grids[0]).frame_tokens

    @property
    def known_grid(self) -> int | None:
        """The visual tokens a side of a frame: as set, or else as the checkpoint is read.

        None for random weights, and where the checkpoint is not there yet.
        """
        if self.grid is not None or self.path is None:
            return self.grid
        try:
            own = read_config(self.path / "config.json").get("threedrs")
        except CheckpointError:  # on its way
            return None
        trained = own.get("grid") if isinstance(own, dict) else None
        # A published checkpoint does not name its grid; `read_family` takes the family's default.
        return trained or (None if self.name is None else find_family(self.name).grids[0])

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelSettings":
        """Return the settings of a resolved run configuration."""
        return cls(
            **config["model"],
            coordinate_dtype=config["geometry"]["coordinate_dtype"],
            seed=config["train"]["seed"],
        )


def read_run_config(path: Path) -> dict[str, Any]:
    """Return the resolved run in a file, ``results/train/<run>/config.json``.

    Raises:
        DataError: the file is missing, or not that of a run.
    """
    config = read_json(path)
    if not (isinstance(config, dict) and {"model", "geometry", "train"} <= config.keys()):
        raise DataError(f"{path}: is not a run's settings; give results/train/RUN/config.json")
    return config


class PredictSettings(Section):
    """How a trained model is asked."""

    place = "settings"
    prompt: Prompt = "reference"  # as ``eval.prompt``
    decoding: Decoding = "greedy"  # as ``eval.decoding``
    max_new_tokens: PositiveInt = 512  # as ``eval.max_new_tokens``
    boxes: BoxSet = "pred"  # the boxes offered to the model, as ``boxes.eval``
    attention: Attention = "auto"  # backend, as ``model.attention``
    coordinate_dtype: CoordinateDtype = "float32"  # as ``geometry.coordinate_dtype``
    limit: PositiveInt | None = None  # as ``eval.limit``
    control: Control | None = None  # one of ``eval.controls``; None: asked with the room's images

    @classmethod
    def for_model(cls, model: Path, given: Mapping[str, Any]) -> "PredictSettings":
        """Return the settings ``given``, and of the rest those of the model's run or the defaults.

        Raises:
            ConfigError: an unknown key, or a wrong value.
        """
        # A model asked with coordinates of another precision than it was trained with answers
        # worse, and nothing in its folder says which. A run's is its config.json, or a folder
        # ``model`` beside that.
        file = model if model.is_file() else model.absolute().with_name("config.json")
        of_run = file.is_file() and (model.is_file() or model.name == "model")
        config = read_json(file) if of_run else {}
        if isinstance(config, dict) and {"run", "geometry"} <= config.keys():
            given = {"coordinate_dtype": config["geometry"]["coordinate_dtype"], **given}
        return cls(**given)
