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
        # A model asked with coordinates of another precision than it was trained with answers
        # worse, and nothing in its folder says which. A run's is its config.json, or a folder
        # ``model`` beside that.
        file = model if model.is_file() else model.absolute().with_name("config.json")
        of_run = file.is_file() and (model.is_file() or model.name == "model")
        config = read_json(file) if of_run else {}
        if isinstance(config, dict) and {"run", "geometry"} <= config.keys():
            given = {"coordinate_dtype": config["geometry"]["coordinate_dtype"], **given}
        return cls(**given)
