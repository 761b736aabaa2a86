"""Annotation files and their rows: what a converter reads, and why a row cannot be converted.

`AnnotationTables` hands a converter the rows; the functions below it give typed access to a row's
fields, and raise `RowError` for one that is not as it should be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threedrs.errors import DataError
from threedrs.io.files import read_json, text_problem
from threedrs.tasks.record import COORD, END, GROUND, IMAGE, START, Record

if TYPE_CHECKING:
    from threedrs.tasks.scene_boxes import SceneBoxes

TRAINING_SPLIT = "train"

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


@dataclass(frozen=True, kw_only=True)
class AnnotationFile:
    """One of a benchmark's files: its path below the benchmark folder, with ``{split}``.

    ``key`` is the top-level key that holds the rows, or None where the file is a list itself.
    """

    path: str
    key: str | None = None

    def read(self, path: Path) -> list[Any]:
        """Return the rows of the file, which lies at ``path``.

        The file is read into memory; the largest, SQA3D's training questions, has 12 MB.

        Raises:
            DataError: the file is missing, not JSON, of another form, or without rows.
        """
        value = read_json(path)
        if self.key is not None:
            if not isinstance(value, dict) or self.key not in value:
                raise DataError(f"{path}: expected a JSON object with the key {self.key!r}")
            value = value[self.key]
        if not isinstance(value, list):
            within = "" if self.key is None else f" under the key {self.key!r}"
            raise DataError(f"{path}: expected a JSON list of annotations{within}")
        if not value:
            raise DataError(f"{path}: holds no annotations")
        return value


@dataclass(frozen=True, kw_only=True)
class PublishedSize:
    """Rows of a published annotation file, the records they give, and the scenes these are of."""

    rows: int
    records: int
    scenes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A row that was not converted; ``row`` counts from 0 within the annotation file's list.

    A row of an excluded scene names ``scene``, and how many ``records`` it would have given.
    """

    file: str
    row: int
    reason: str
    detail: str
    scene: str | None = None
    records: int = 0


@dataclass(frozen=True, kw_only=True)
class AnnotationTables:
    """The annotations of one benchmark and split, and what its converter may look up."""

    split: str  # train, val or test
    names: tuple[str, ...]  # path of each file below the benchmark folder
    tables: tuple[list[Any], ...]  # rows of each file
    scenes: "SceneBoxes"  # known scenes and boxes
    # ScanNet's label table; None: question types that need it are not asked for.
    labels_file: Path | None

    @property
    def training(self) -> bool:
        """Return whether the records are training samples, not evaluation questions."""
        return self.split == TRAINING_SPLIT

    def rejection(self, row: int, error: RowError, table: int = 0) -> Rejection:
        """Return the report of a row of the ``table``-th file."""
        return Rejection(file=self.names[table], row=row, reason=error.reason, detail=error.detail)

    def each_row(self, make: Callable[[int, Row], list[Record]]) -> Iterator[Record | Rejection]:
        """Yield what ``make(number, row)`` gives for each row of the first file, or its rejection.

        ``make`` raises `RowError` for a row that cannot be converted. A row is converted whole or
        not at all.
        """
        for number, row in enumerate(self.tables[0]):
            try:
                made = make(number, check_row(row))
            except RowError as error:
                yield self.rejection(number, error)
            else:
                yield from self.of_scene(made, [number])

    def of_scene(
        self, records: Sequence[Record], rows: Sequence[int]
    ) -> Iterator[Record | Rejection]:
        """Yield the ``records`` of one scene, or their ``rows`` as rejected if it is excluded."""
        scene = records[0].scene if records else None
        if scene is None or scene not in self.scenes.left_out:
            yield from records
            return
        for place, row in enumerate(rows):
            yield Rejection(
                file=self.names[0],
                row=row,
                reason=SCENE_LEFT_OUT,
                detail=f"{scene}: {self.scenes.left_out[scene]}",
                scene=scene,
                records=0 if place else len(records),
            )


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
