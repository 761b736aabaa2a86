"""The base of all settings: a pydantic model whose errors are lines that a user can act on.

A line names the key by its path in the configuration, what stands there, and what may: the nearest
valid key, the choices, or the range.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from threedrs.errors import ConfigError, ThreedrsError, choose_one, did_you_mean


class Section(BaseModel):
    """A part of the configuration; the text below a key is its description for people.

    A stage takes its section as it is for its settings, or a subclass that adds what depends on
    several keys. Either checks itself when it is made, so a stage has no checks of its own.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    place: ClassVar[str] = ""  # where the section stands in the configuration
    from_yaml: ClassVar[bool] = True  # whether values may be wrong because of how YAML reads them

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            found = error.errors()
            own = found[0].get("ctx", {}).get("error")
            if len(found) == 1 and isinstance(own, ThreedrsError):
                raise own from None
            raise ConfigError("\n".join(problem_lines(error, type(self), self.place))) from None

    # Sections within a section are checked without the above: their errors are part of its own.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, values: Any) -> Any:
        """Take 1000.0 for 1000: both are the same to a reader, and a key of floats takes either."""
        if not isinstance(values, Mapping):
            return values
        return {
            key: int(value) if isinstance(value, float) and value.is_integer() else value
            for key, value in values.items()
        }

    def replace(self, **changes: Any) -> Self:
        """Return a copy with ``changes``, checked as any other."""
        return type(self)(**{**dict(self), **changes})

    def to_json(self) -> dict[str, Any]:
        """Return every key as a JSON value, equal for equal settings."""
        return self.model_dump(mode="json")


def problem_lines(error: ValidationError, model: type[BaseModel], place: str = "") -> list[str]:
    """Return what pydantic found wrong, a line each, in the order of the keys' paths."""
    schema = model.model_json_schema()
    from_yaml = issubclass(model, Section) and model.from_yaml
    found = sorted(error.errors(), key=lambda one: [str(step) for step in one["loc"]])
    return [
        line
        for one in found
        # A list whose items are wrong is too short for pydantic as well.
        if not (one["type"] == "too_short" and one["input"])
        for line in describe_problem(one, schema, place, from_yaml=from_yaml).splitlines()
    ]


def describe_problem(
    error: ErrorDetails, schema: dict[str, Any], place: str = "", *, from_yaml: bool = False
) -> str:
    """Return the line for one thing that pydantic found wrong, by the ``schema`` of the whole."""
    kind, value, steps = error["type"], error["input"], error["loc"]
    context = error.get("ctx", {})
    of_key = steps[-1:] == ("[key]",) or kind in (*_UNKNOWN, "invalid_key", "missing")
    if of_key:
        key = str(steps[-2] if steps[-1] == "[key]" else steps[-1])
        steps = steps[: -2 if steps[-1] == "[key]" else -1]
    named, parts = _find(schema, steps)
    where = ".".join((*filter(None, (place,)), *named))
    if isinstance(context.get("error"), ThreedrsError):
        return str(context["error"])
    if kind == "invalid_key" or (of_key and kind == "string_type"):
        return f"{where or 'file'}: the key {key} is not a text to YAML; write it in quotes"
    if kind == "missing":
        return f"{where}: {key!r} is a required property".removeprefix(": ")
    if of_key and kind in (*_UNKNOWN, "choice", "literal_error"):
        elsewhere = [
            name
            for name, part in schema.get("properties", {}).items()
            for form in _forms(part, schema)
            if key in form.get("properties", {})
        ]
        return unknown_key(where, key, list(_keys(parts)), elsewhere)
    offered = (part.get("enum", [part["const"]] if "const" in part else ()) for part in parts)
    choices = [str(choice) for values in offered for choice in values]
    if kind in ("literal_error", "choice") or (choices and kind == "string_type"):
        return f"{where} is {value!r}; {choose_one(str(value), choices)}"
    if kind == "none_required":
        return f"{where} is {value!r:.80}; remove it"
    if kind == "finite_number":
        return f"{where} is {value}; expected a finite number"
    if kind.endswith("_type"):
        types = dict.fromkeys(str(part["type"]) for part in parts if "type" in part)
        line = f"{value!r:.80} is not of type {', '.join(map(repr, types))}"
        return f"{where or 'file'}: {line}{_yaml_hint(value, types) if from_yaml else ''}"
    if kind in _RANGES:
        words, bound = _RANGES[kind]
        return f"{where}: {value!r:.80} is {words} of {context[bound]:g}"
    if kind in ("too_short", "string_too_short") and context["min_length"] == 1:
        return f"{where}: {value!r} should be non-empty"
    if kind == "string_pattern_mismatch":
        return f"{where}: {value!r:.80} {_pattern_problem(context['pattern'])}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def parse_object(text: str, where: str, expected: str = "expected a JSON object") -> dict[str, Any]:
    """Return the JSON object that a user typed; ``where`` begins an error.

    Raises:
        ConfigError: it is none.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}is not JSON ({error.msg})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}{expected}")
    return value


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # of a model, of a dataclass
_RANGES = {
    "greater_than": ("less than or equal to the minimum", "gt"),
    "greater_than_equal": ("less than the minimum", "ge"),
    "less_than": ("greater than or equal to the maximum", "lt"),
    "less_than_equal": ("greater than the maximum", "le"),
}


def _find(
    schema: dict[str, Any], steps: Sequence[str | int]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the path of a key and the forms that its value may have, as parts of a JSON Schema.

    Steps in brackets are not keys: they say which form of several pydantic tried.
    """
    named, parts = list[str](), [*_forms(schema, schema)]
    for step in steps:
        if not str(step).startswith("("):
            named.append(str(step))
            inner = _below(parts, step)
            parts = [form for part in inner for form in _forms(part, schema)]
    return named, parts


def _forms(part: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in part:
        yield from _forms(schema["$defs"][part["$ref"].rpartition("/")[2]], schema)
    elif "anyOf" in part or "oneOf" in part:
        for form in part.get("anyOf") or part["oneOf"]:
            yield from _forms(form, schema)
    else:
        yield part


def _below(parts: list[dict[str, Any]], step: str | int) -> Iterator[dict[str, Any]]:
    for part in parts:
        if isinstance(step, int) and "items" in part:
            yield part["items"]
        elif step in part.get("properties", {}):
            yield part["properties"][step]
        elif isinstance(part.get("additionalProperties"), dict):
            yield part["additionalProperties"]
        else:
            yield from part.get("patternProperties", {}).values()


def _keys(parts: list[dict[str, Any]]) -> Iterator[str]:
    for part in parts:
        yield from part.get("properties", {})
        names = part.get("propertyNames", {})
        for form in names.get("anyOf", [names]):
            yield from form.get("enum", ())


_NAME_PATTERN = re.compile(r"\^\[A-Za-z0-9\]\[A-Za-z0-9(.+)\]\*\$")


def _pattern_problem(pattern: str) -> str:
    # A pattern of paths is known by the words in braces that it has to hold.
    held = dict.fromkeys(re.findall(r"\\\{(\w+)", pattern))
    if held:
        return f"does not hold {' and '.join(f'{{{word}}}' for word in held)}; add what is missing"
    if name := _NAME_PATTERN.fullmatch(pattern):
        signs = f"letters, digits and {' '.join(name[1])}"  # apart, as some are marks of a sentence
        return f"is not a name; write it with {signs}, beginning with a letter or digit"
    return f"does not match {pattern!r}"


def _yaml_hint(value: Any, types: Collection[str]) -> str:
    if "number" in types and isinstance(value, str):
        # 1e-5 has no point: YAML 1.1 takes it for a text.
        with suppress(ValueError):
            return f"; to YAML this is a text, write {yaml.safe_dump(float(value)).split()[0]}"
    if "string" in types and type(value) in (int, float):
        return f"; to YAML this is a number, write '{value}'"
    return ""


def unknown_key(where: str, key: str, known: Sequence[str], elsewhere: Sequence[str] = ()) -> str:
    """Return the line for a key that there is not, with the nearest one that there is.

    ``elsewhere`` are the sections that have this key.
    """
    advice = did_you_mean(key, known, cutoff=0.5) or f"valid keys: {', '.join(known)}"
    if elsewhere:
        advice = f"the section {' or '.join(elsewhere)} has such a key"
    if key == "teacher" and where.endswith("supervision"):  # beside the loss one looks for it
        section = where.removesuffix("supervision") + "teacher"
        advice = f"the teacher is {section}.name"
    return f"{where}.{key} is not a key; {advice}".removeprefix(".")
