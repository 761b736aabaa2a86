"""The instruction record: one training sample or one evaluation question, one line of JSON.

A line is validated field by field when read (about 5 microseconds), so that what uses records need
not check them again.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import check_encodable, check_scene_name, read_json_lines, write_json_lines

FORMAT_VERSION = 1
# Marks of a conversation, and of the chat that it becomes: an annotator's text may hold none.
IMAGE, GROUND, COORD = "<image>", "<ground>", "<coord>"
START, END = "<|im_start|>", "<|im_end|>"
FARTHEST = 1e6  # metres from the origin: no scan reaches so far
REQUIRED_FIELDS = ("id", "benchmark", "scene", "conversations")
OPTIONAL_FIELDS = ("question_type", "ann_id", "object_ids", "box", "box_input", "references")
# Stands before the number of a repeat. Other than a dash it is part of no published id.
REPEAT = "#"
# A published number, and what `with_unique_ids` appended where it is repeated.
_NUMBER = re.compile(rf"(0|[1-9]\d*)({REPEAT}\d+)?")
_FIELDS = frozenset({"format_version", *REQUIRED_FIELDS, *OPTIONAL_FIELDS})


def conversation(human: str, answer: str) -> list[dict[str, str]]:
    """Return the two turns of a record: prompt with its ``<image>`` mark, and answer."""
    return [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One training sample or evaluation question; absent fields are None."""

    # Unique within a file and benchmark; the published one, as a string. Of repeated ones all but
    # the first have a number appended (`with_unique_ids`).
    id: str
    benchmark: str  # name of a benchmark, a key of `threedrs.tasks.registry.TASKS`
    scene: str  # ScanNet scene name
    # Two turns ``{"from": "human" | "gpt", "value": text}``, human first.
    conversations: list[dict[str, str]]
    question_type: str | None = None  # the benchmark's own division, where it has one
    # Number of the description among those of its object, where the benchmark has one.
    ann_id: int | None = None
    # Annotated objects that the sample is about (the grounding target); empty where Multi3DRefer
    # describes no object of the scene.
    object_ids: list[int] | None = None
    # Ground-truth box of the one object (centre x, y, z, size x, y, z; world frame, metres); a list
    # of such where there may be several or none (Multi3DRefer).
    box: list[float] | list[list[float]] | None = None
    # Box that the question points at with ``<coord>``; same form.
    box_input: list[float] | None = None
    references: list[str] | None = None  # all true answers; set for evaluation only

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
        values = {name: getattr(self, name) for name in (*REQUIRED_FIELDS, *OPTIONAL_FIELDS)}
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
        if not isinstance(value, dict):
            raise DataError(f"{where}: a record must be a JSON object")
        if value.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{where}: format_version is {value.get('format_version')!r}, this version reads "
                f"{FORMAT_VERSION}; convert the annotations again"
            )
        for name in REQUIRED_FIELDS:
            if name not in value:
                raise DataError(f"{where}: the record has no field {name!r}")
        if not _FIELDS.issuperset(value):
            unknown = ", ".join(sorted(set(value) - _FIELDS))
            raise DataError(f"{where}: the record has unknown fields: {unknown}")
        for name in ("id", "benchmark"):
            if not (isinstance(value[name], str) and value[name]):
                raise DataError(f"{where}: {name} must be a non-empty text, not {value[name]!r}")
        check_scene_name(value["scene"], where)
        if not _is_conversation(value["conversations"]):
            raise DataError(
                f'{where}: conversations must be [{{"from": "human", "value": text}}, '
                f'{{"from": "gpt", "value": text}}] without empty texts'
            )
        for name, check, expected in _OPTIONAL_CHECKS:
            item = value.get(name)
            if item is not None and not check(item):
                raise DataError(f"{where}: {name} must be {expected} or null, not {item!r:.80}")
        for name, text in _texts(value):
            check_encodable(text, name, where)
        return cls(**{name: value[name] for name in value if name != "format_version"})


def _texts(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each text of a record's value, whose types are checked."""
    yield "id", value["id"]
    yield "benchmark", value["benchmark"]
    for turn in value["conversations"]:
        yield "conversations", turn["value"]
    if value.get("question_type") is not None:
        yield "question_type", value["question_type"]
    for text in value.get("references") or ():
        yield "references", text


def _is_conversation(value: Any) -> bool:
    """Return whether ``value`` is a human turn followed by an assistant turn, both with text."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return False
    texts = [turn.get("value") for turn in value]
    return (
        [turn.get("from") for turn in value] == ["human", "gpt"]
        and all(isinstance(text, str) and text.strip() for text in texts)
        and all(len(turn) == 2 for turn in value)
    )


def is_box(value: Any) -> bool:
    """Return whether ``value`` is a list of six finite numbers, the sizes not negative."""
    return (
        isinstance(value, list)
        and len(value) == 6
        and all(type(number) in (int, float) and abs(number) <= FARTHEST for number in value)
        and min(value[3:]) >= 0
    )


def _is_list_of(kind: type) -> Callable[[Any], bool]:
    """Return the test for a list of ``kind``; true and false are no integers."""
    return lambda value: isinstance(value, list) and all(type(item) is kind for item in value)


_OPTIONAL_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("question_type", lambda value: isinstance(value, str), "a text"),
    ("ann_id", lambda value: type(value) is int, "an integer"),
    ("object_ids", _is_list_of(int), "a list of integers"),
    (
        "box",
        lambda value: is_box(value) or (isinstance(value, list) and all(map(is_box, value))),
        "six finite numbers (centre and size), or a list of such boxes",
    ),
    ("box_input", is_box, "six finite numbers (centre and size)"),
    ("references", _is_list_of(str), "a list of texts"),
)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON-lines file, in order.

    Raises:
        DataError: the file is missing, or a line is not a record; the message names the line.
    """
    for number, value in enumerate(read_json_lines(path), start=1):
        yield Record.from_json(value, f"{path}: line {number}")


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
