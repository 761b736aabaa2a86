"""Settings of inference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threedrs.config.schema import Attention, BoxSet, Control, CoordinateDtype, Decoding, Prompt
from threedrs.config.section import Section
from threedrs.config.value_types import PositiveInt
from threedrs.io.files import read_json


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
        return cls(**{**_of_run(model), **given})


def _of_run(model: Path) -> dict[str, Any]:
    """Return how a run's model was trained, or nothing of a model that is not of a run.

    A run's is its config.json, or a folder ``model`` beside that.
    """
    # A model asked with coordinates of another precision than it was trained with answers worse,
    # and nothing in its folder says which.
    file = model if model.is_file() else model.absolute().with_name("config.json")
    if not file.is_file() or not (model.is_file() or model.name == "model"):
        return {}
    config = read_json(file)
    if not isinstance(config, dict) or not {"run", "geometry"} <= config.keys():
        return {}
    return {"coordinate_dtype": config["geometry"]["coordinate_dtype"]}
