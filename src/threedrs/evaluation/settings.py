"""Settings of inference."""

import json
from collections.abc import Mapping
from typing import Any

from threedrs.config.schema import Attention, BoxSet, CoordinateDtype, Decoding, Prompt
from threedrs.config.section import Section
from threedrs.config.value_types import PositiveInt
from threedrs.errors import ConfigError


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

    @classmethod
    def from_text(cls, text: str) -> "PredictSettings":
        """Return the settings of the option ``--settings``. Raises ConfigError as `from_json`."""
        try:
            return cls.from_json(json.loads(text))
        except json.JSONDecodeError as error:
            raise ConfigError(f"--settings: is not JSON ({error.msg})") from error

    @classmethod
    def from_json(cls, value: Any) -> "PredictSettings":
        """Return the settings of a JSON object; what it leaves out keeps its default.

        Raises:
            ConfigError: not an object, an unknown key, or a wrong value.
        """
        if not isinstance(value, Mapping):
            raise ConfigError("settings: expected a JSON object")
        return cls(**value)
