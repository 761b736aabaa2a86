"""The instruction record: one training sample or one evaluation question, one line of JSON.

A line is parsed and validated when read (about 12 microseconds), so that what uses records need not
check them again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalText, check_external
from threedrs.io.files import SCENE_NAME, parse_json, read_lines, write_json_lines

FORMAT_VERSION = 1
# Marks of a conversation, and of the chat that it becomes: an annotator's text may hold none.
IMAGE, GROUND, COORD = "<image>", "<ground>", "<coord>"
START, END = "<|im_start|>", "<|im_end|>"
# Tokenizers turn these into their tokens wherever they stand, and all that Qwen2 reserves likewise.
_MARK = re.compile(rf"{IMAGE}|{GROUND}|{COORD}|<\|\w+\|>")
FARTHEST = 1e6  # metres from the origin: no scan reaches so far
# Stands before the number of a repeat. Other than a dash it is part of no published id.
REPEAT = "#"
# A published number, and what `with_unique_ids` appended where it is repeated.
_NUMBER = re.compile(rf"(0|[1-9]\d*)({REPEAT}\d+)?")
# So begins each line that `Record.to_json` gave.
_LINE_START = f'{{"format_version": {FORMAT_VERSION}, '
_REMEDY = "mend the record, or convert the annotations again"


def check_unmarked(text: str) -> str:
    """Return what a person wrote, which holds no mark.

    Raises:
        ValueError: it holds one; a clause that names it.
    """
    if mark := _MARK.search(text):
        raise ValueError(f"holds {mark[0]}, which means something to the model")
    return text


def conversation(human: str, answer: str) -> list[dict[str, str]]:
    """Return the two turns of a record: prompt with its ``<image>`` mark, and answer."""
    return [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]


def is_box(value: Any) -> bool:
    """Return whether ``value`` is a list of six finite numbers, the sizes not negative."""
    return (
        isinstance(value, list)
        and len(value) == 6
        and all(type(number) in (int, float) and abs(number) <= FARTHEST for number in value)
        and min(value[3:]) >= 0
    )


def _check_scene(name: str) -> str:
    if SCENE_NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a scene name such as scene0000_00")
    return name


def _check_turns(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    speakers = [turn.get("from") for turn in turns]
    spoken = all(len(turn) == 2 and turn.get("value", "").strip() for turn in turns)
    if speakers != ["human", "gpt"] or not spoken:
        raise ValueError('expected a "human" and a "gpt" turn, each with "from" and a "value"')
    return turns


def _check_box(value: list[Any]) -> list[Any]:
    if not is_box(value):
        raise ValueError("expected six finite numbers (centre and size, in metres)")
    return value


def _check_boxes(value: list[Any]) -> list[Any]:
    if not is_box(value) and not all(map(is_box, value)):
        raise ValueError("expected six finite numbers (centre and size), or a list of such boxes")
    return value


Text = Annotated[ExternalText, Strict()]
Integer = Annotated[int, Strict()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One training sample or evaluation question; absent fields are None."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    # Unique within a file and benchmark; the published one, as a string. Of repeated ones all but
    # the first have a number appended (`with_unique_ids`).
    id: Annotated[Text, Field(min_length=1)]
    # Name of a benchmark, a key of `threedrs.tasks.registry.TASKS`.
    benchmark: Annotated[Text, Field(min_length=1)]
    scene: Annotated[Text, AfterValidator(_check_scene)]  # ScanNet scene name
    # Two turns ``{"from": "human" | "gpt", "value": text}``, human first.
    conversations: Annotated[list[dict[str, Text]], AfterValidator(_check_turns)]
    question_type: Text | None = None  # the benchmark's own division, where it has one
    # Number of the description among those of its object, where the benchmark has one.
    ann_id: Integer | None = None
    # Annotated objects that the sample is about (the grounding target); empty where Multi3DRefer
    # describes no object of the scene.
    object_ids: list[Integer] | None = None
    # Ground-truth box of the one object (centre x, y, z, size x, y, z; world frame, metres); a list
    # of such where there may be several or none (Multi3DRefer).
    box: Annotated[list[Any], AfterValidator(_check_boxes)] | None = None
    # Box that the question points at with ``<coord>``; same form.
    box_input: Annotated[list[Any], AfterValidator(_check_box)] | None = None
    references: list[Text] | None = None  # all true answers; set for evaluation only

    @property
    def human(self) -> str:
        """The human turn's text."""
        return self.conversations[0]["value"]

    @property
    def answer(self) -> str:
        """The assistant turn's text."""
        return self.conversations[1]["value"]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON line's value, every field but ``ann_id`` present in any case."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.ann_id is None:  # which most benchmarks do not have
            del values["ann_id"]
        return {"format_version": FORMAT_VERSION, **values}

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Record":
        """Return the record of a JSON line's value; ``where`` names file and line for messages.

        Raises:
            DataError: another format version, an unknown or missing field, a wrong type, or a
                string that cannot be written as UTF-8.
        """
        version = value.get("format_version") if isinstance(value, dict) else FORMAT_VERSION
        if version != FORMAT_VERSION:
            raise DataError(
                f"{where}: format_version is {version!r}, this version reads {FORMAT_VERSION}; "
                "convert the annotations again"
            )
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if name != "format_version"}
        return check_external(value, cls, where, _REMEDY)

    @classmethod
    def from_line(cls, line: str, where: str) -> "Record":
        """Return the record of a JSON line; ``where`` names file and line for messages.

        Raises:
            DataError: the line is not JSON, or as in `from_json`.
        """
        # Parsed and checked in one pass, which takes half the time of two. What that refuses is
        # parsed and checked again in two, for a message in our words.
        if line.startswith(_LINE_START):
            with suppress(ValidationError):
                return _LINE.validate_json("{" + line[len(_LINE_START) :])
        return cls.from_json(parse_json(line, where), where)


_LINE = TypeAdapter(Record)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON-lines file, in order.

    Raises:
        DataError: the file is missing, or a line is not a record; the message names the line.
    """
    return (record for _, record in read_record_lines(path))


def read_record_lines(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield each line of a JSON-lines file with its record; raises as `read_records` does."""
    return ((line, Record.from_line(line, where)) for where, line in read_lines(path))


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as JSON lines, whole or not at all; return how many."""
    return write_json_lines(path, (record.to_json() for record in records))


def published_id(record_id: str) -> int | str:
    """Return a record's id as published files have it: row numbers and question ids are numbers."""
    found = _NUMBER.fullmatch(record_id)
    return int(found[1]) if found else record_id


def with_unique_ids(records: Sequence[Record]) -> Iterator[Record]:
    """Yield the records; of one benchmark's, repeated ids get ``#2``, ``#3``, ... appended."""
    taken = {(record.benchmark, record.id) for record in records}
    numbers: dict[tuple[str, str], int] = {}
    for record in records:
        key = (record.benchmark, record.id)
        number = numbers.get(key, 0) + 1
        if number > 1:
            # A number that another record bears already, here or further on, is skipped.
            while (record.benchmark, f"{record.id}{REPEAT}{number}") in taken:
                number += 1
            record = replace(record, id=f"{record.id}{REPEAT}{number}")
        numbers[key] = number
        yield record
