"""Settings of inference."""

import json
from collections.abc import Mapping
from typing import Any

from threedrs.config.schema import Attention, BoxSet, CoordinateDtype, Decoding, Prompt
from threedrs.config.section import Section
from threedrs.config.value_types import PositiveInt
from threedrs.errors import ConfigError


class PredictSettings(Section):
    """How a trained model is asked.

    Attributes:
        prompt: as ``eval.prompt``.
        decoding: as ``eval.decoding``.
        max_new_tokens: as ``eval.max_new_tokens``.
        boxes: the boxes offered to the model, as ``boxes.eval``.
        attention: backend, as ``model.attention``.
        coordinate_dtype: as ``geometry.coordinate_dtype``.
        limit: as ``eval.limit``.
    """

    place = "settings"
    prompt: Prompt = "reference"
    decoding: Decoding = "greedy"
    max_new_tokens: PositiveInt = 512
    boxes: BoxSet = "pred"
    attention: Attention = "auto"
    coordinate_dtype: CoordinateDtype = "float32"
    limit: PositiveInt | None = None

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
