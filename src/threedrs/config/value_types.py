"""The types of values in the configuration, beyond Python's own: ranges, names, patterns."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, core_schema

Text = Annotated[str, Field(min_length=1)]
NaturalInt = Annotated[int, Field(ge=0)]
NaturalFloat = Annotated[float, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _named(path: Any) -> Any:
    # Path("") is the working folder, which nobody means by it.
    if path == "":
        raise PydanticCustomError("empty", "'' should be non-empty")
    return path


FilePath = Annotated[
    Path,
    # Strict pydantic would refuse the string that YAML has for a path.
    Field(strict=False),
    BeforeValidator(_named),
    WithJsonSchema({"type": "string", "minLength": 1}),
]


def _filled_with(*names: str) -> AfterValidator:
    """Return a check that a pattern of paths can be filled in with these names alone."""

    def check(pattern: str) -> str:
        try:
            pattern.format(**dict.fromkeys(names, ""))
        except (LookupError, ValueError, AttributeError):
            text = "{pattern} cannot be filled in; in braces it may have {names}"
            said = {"pattern": repr(pattern), "names": " and ".join(names)}
            raise PydanticCustomError("pattern", text, said) from None
        return pattern

    return AfterValidator(check)


OfSplit = Annotated[str, Field(pattern=r"\{split\}"), _filled_with("split")]
OfSplitAndSet = Annotated[
    str, Field(pattern=r"\{split\}.*\{set\}|\{set\}.*\{split\}"), _filled_with("split", "set")
]
OfBenchmark = Annotated[Text, _filled_with("split", "benchmark")]


def _word_or_integer(word: str, called: str) -> PlainValidator:
    """Return a check that a value is ``word`` or an integer from 0 up, in messages ``called``."""
    schema = {"anyOf": [{"const": word}, {"type": "integer", "minimum": 0}]}

    def check(value: Any) -> Any:
        # In one message, where a union of types would give a line for each form. True is an int,
        # too.
        if value != word and (type(value) is not int or value < 0):
            text = "{value} is not valid; valid: {word}, or {called} from 0 up"
            said = {"value": repr(value), "word": word, "called": called}
            raise PydanticCustomError("word_or_integer", text, said)
        return value

    return PlainValidator(check, json_schema_input_type=Annotated[Any, WithJsonSchema(schema)])


Layer = Annotated[str | int, _word_or_integer("last", "a layer index")]
KeptLayers = Annotated[str | int, _word_or_integer("auto", "a number of layers")]


@dataclass(frozen=True)
class OneOf:
    """Annotates a string that must be one of the names that ``names`` gives when it is checked.

    Or it may be of the form ``pattern``, such as an import path, which others look into.
    """

    names: Callable[[], tuple[str, ...]]
    pattern: str | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Check the string after its type."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Offer the names to editors."""
        known: dict[str, Any] = {"type": "string", "enum": [*self.names()]}
        if self.pattern is None:
            return known
        formed = {"type": "string", "pattern": f"^{self.pattern}$"}
        return {"type": "string", "anyOf": [known, formed]}

    def _check(self, value: str) -> str:
        # When the section is made and not when this is imported: a package may register more names.
        formed = self.pattern is not None and re.fullmatch(self.pattern, value)
        if value not in self.names() and not formed:
            raise PydanticCustomError("choice", "unknown")
        return value


def in_order_of(names: Sequence[str]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return a check that a list names nothing twice; it puts the list into the order of `names`.

    Snakemake and the fingerprint compare settings as text, where another order is a change.
    """

    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(unique(values), key=names.index))

    return check


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check that a list names nothing twice."""
    if len(set(values)) < len(values):
        raise PydanticCustomError("twice", "names something twice")
    return values
