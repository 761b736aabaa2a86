"""Annotation files and their rows: what a converter reads, and why a row cannot be converted.

A benchmark's file says by an `ExternalRow` which fields of a row it uses, with the types below.
`AnnotationTables` hands its converter the rows in this form, and rejects those of another.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from threedrs.config.section import describe_problem
from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, ExternalText
from threedrs.io.files import read_json
from threedrs.tasks.record import Record, check_unmarked

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

RowForm = TypeVar("RowForm", bound=ExternalRow)


def _check_words(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty_text", "is empty")
    return check_unmarked(text)


def _from_digits(value: Any) -> Any:
    digits = isinstance(value, str) and len(value) < 10 and value.isascii() and value.isdecimal()
    return int(value) if digits else value


Words = Annotated[ExternalText, AfterValidator(_check_words)]
"""A text with more than white space, verbatim."""
Integer = Annotated[int, BeforeValidator(_from_digits)]
"""An integer that is given as a number or as its decimal digits."""
Identifier = Annotated[Words, BeforeValidator(lambda v: str(v) if type(v) is int else v)]
"""An identifier that is given as a string or as an integer."""


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
        value, within = read_json(path), ""
        if self.key is not None:
            value, within = isinstance(value, dict) and value.get(self.key), f" under {self.key!r}"
        if not isinstance(value, list) or not value:
            raise DataError(
                f"{path}: expected a JSON list of annotations{within}; copy the file again"
            )
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
    folder: Path  # the benchmark folder
    names: tuple[str, ...]  # path of each file below it
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

    def each_row(
        self, form: type[RowForm], make: Callable[[int, RowForm], list[Record]]
    ) -> Iterator[Record | Rejection]:
        """Yield what ``make(number, row)`` gives for each row of the first file, or its rejection.

        A row is converted whole or not at all: it is rejected where it is not of ``form``, and
        where ``make`` raises `RowError`.
        """
        for number, row in enumerate(self.tables[0]):
            try:
                made = make(number, parse_row(form, row))
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


def parse_row(form: type[RowForm], row: Any) -> RowForm:
    """Return the fields of a row.

    Raises:
        RowError: it is not of this form; says the first thing that is wrong.
    """
    try:
        return form.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = EMPTY_TEXT if first["type"] in ("empty_text", "too_short") else MALFORMED
        detail = describe_problem(first, _schema(form)).removeprefix("file: ")
        raise RowError(reason, detail) from None


@cache
def _schema(form: type[ExternalRow]) -> dict[str, Any]:
    # Kept, since a file of another version may have ten thousands of rows to reject.
    return form.model_json_schema()
