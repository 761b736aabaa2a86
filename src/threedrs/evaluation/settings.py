"""Settings of inference."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from threedrs.errors import ConfigError
from threedrs.scannet.boxes import BOX_SETS

PROMPTS = ("reference", "as_trained")


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """How a trained model is asked. Decoding is greedy and stops at ``<|im_end|>``.

    Attributes:
        prompt: reference: without the instruction sentence, as published; as_trained: with it.
        max_new_tokens: most tokens of an answer.
        boxes: the boxes offered to the model: pred (detector proposals) or gt.
        attention: backend, as in ``model.attention``.
        coordinate_dtype: as in ``geometry.coordinate_dtype``.
    """

    prompt: Literal["reference", "as_trained"] = "reference"
    max_new_tokens: int = 512
    boxes: str = "pred"
    attention: str = "auto"
    coordinate_dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("prompt", self.prompt, PROMPTS),
            ("boxes", self.boxes, BOX_SETS),
        ):
            if value not in valid:
                raise ConfigError(f"eval {name} is {value!r}; choose one of {', '.join(valid)}")
        if type(self.max_new_tokens) is not int or self.max_new_tokens < 1:
            raise ConfigError(
                f"eval max_new_tokens is {self.max_new_tokens!r}; give a whole number from 1 up"
            )

    @classmethod
    def from_json(cls, value: Any) -> "PredictSettings":
        """Return the settings of a JSON object; what it leaves out keeps its default.

        Raises:
            ConfigError: not an object, an unknown key, or a wrong value.
        """
        if not isinstance(value, Mapping):
            raise ConfigError("settings: expected a JSON object")
        known = [field.name for field in dataclasses.fields(cls)]
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                advice = f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(known)}"
                raise ConfigError(f"settings: {key} is not a key; {advice}")
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as ``from_json`` reads them."""
        return dataclasses.asdict(self)
