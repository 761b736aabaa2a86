"""Annotation rows: typed access to their fields, and why a row cannot be converted."""

from collections.abc import Mapping
from typing import Any

from threedrs.io.files import text_problem
from threedrs.tasks.record import COORD, END, GROUND, IMAGE, START

# Why a row is rejected: the keys of the summary's counts.
SCENE_MISSING = "scene missing"
SCENE_UNREADABLE = "scene unreadable"
SCENE_LEFT_OUT = "scene left out"
NO_BOX = "object without a box"
EMPTY_TEXT = "empty text"
NO_ANSWER = "question without an answer"
NO_QUESTION = "answer without a question"
MALFORMED = "malformed row"

Row = Mapping[str, Any]


class RowError(Exception):
    """A row that cannot be converted, with a reason that can be counted, and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def check_row(row: Any) -> Row:
    """Return the row if it is a JSON object.

    Raises:
        RowError: it is something else.
    """
    if not isinstance(row, dict):
        raise RowError(MALFORMED, "is not a JSON object")
    return row


def field(row: Row, name: str) -> Any:
    """Return a field that must be there."""
    if name not in row:
        raise RowError(MALFORMED, f"has no field {name!r}")
    return row[name]


def text_field(row: Row, name: str) -> str:
    """Return a field that must be a text with more than white space, verbatim."""
    return check_text(field(row, name), name)


def check_text(value: Any, name: str) -> str:
    """Return ``value`` if it is a text with more than white space."""
    if not isinstance(value, str):
        raise RowError(MALFORMED, f"{name} is not a text: {value!r:.80}")
    problem = text_problem(value)
    if problem is not None:
        raise RowError(MALFORMED, f"{name} {problem}")
    if not value.strip():
        raise RowError(EMPTY_TEXT, f"{name} is empty")
    # The tokenizer would turn such a mark into its token, wherever it stands.
    for mark in (IMAGE, GROUND, COORD, START, END):
        if mark in value:
            raise RowError(MALFORMED, f"{name} holds {mark}, which means something to the model")
    return value


def list_field(row: Row, name: str) -> list[Any]:
    """Return a field that must be a list."""
    value = field(row, name)
    if not isinstance(value, list):
        raise RowError(MALFORMED, f"{name} is not a list: {value!r:.80}")
    return value


def identifier_field(row: Row, name: str) -> str:
    """Return an identifier, which may be a string or an integer, as a string."""
    value = field(row, name)
    return str(value) if type(value) is int else check_text(value, name)


def check_number(value: Any, name: str) -> int:
    """Return an integer that is given as a number or as its decimal digits."""
    if type(value) is int:  # not isinstance, which takes true for 1
        return value
    if isinstance(value, str) and len(value) < 10 and value.isascii() and value.isdecimal():
        return int(value)
    raise RowError(MALFORMED, f"{name} is not an integer: {value!r:.80}")
