"""What a benchmark's converter is made of: its description, and the rows that it converts.

A converter turns rows into records; a row that cannot be converted raises ``RowError`` and comes
out as a ``Rejection``, so that nothing is dropped in silence. A row is converted whole or not at
all. Annotation files are read into memory (the largest, SQA3D's training questions, is 12 MB).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.instructions.record import GROUND, Record
from threedrs.instructions.rows import SCENE_LEFT_OUT, Row, RowError, check_row
from threedrs.instructions.scene_boxes import SceneBoxes
from threedrs.io.files import read_json

GROUNDING_ANSWER = GROUND


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A row that was not converted; ``row`` counts from 0 within the annotation file's list.

    A row of a scene that is left out names ``scene``, and how many ``records`` it would have given.
    """

    file: str
    row: int
    reason: str
    detail: str
    scene: str | None = None
    records: int = 0


@dataclass(frozen=True, kw_only=True)
class AnnotationFile:
    """One of a benchmark's files: its path below the benchmark folder, with ``{split}``.

    ``key`` is the top-level key that holds the rows; None where the file is a list itself.
    """

    path: str
    key: str | None = None

    def read(self, folder: Path, split: str) -> list[Any]:
        """Return the file's rows.

        Raises:
            DataError: the file is missing, not JSON, of another form, or without rows.
        """
        path = folder / self.path.format(split=split)
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
class Published:
    """Size of a published annotation file and the number of records it gives."""

    rows: int
    records: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """One benchmark split's annotations, and what its converter may look up.

    Attributes:
        split: train, val or test.
        names: each file's path below the benchmark folder.
        tables: each file's rows.
        scenes: known scenes and boxes.
        labels_file: ScanNet's label table.
    """

    split: str
    names: tuple[str, ...]
    tables: tuple[list[Any], ...]
    scenes: SceneBoxes
    labels_file: Path

    @property
    def training(self) -> bool:
        """Whether records are training samples (else evaluation questions)."""
        return self.split == "train"

    def rejection(self, row: int, error: RowError, table: int = 0) -> Rejection:
        """Return the report of a row of the ``table``-th file."""
        return Rejection(file=self.names[table], row=row, reason=error.reason, detail=error.detail)

    def each_row(self, make: Callable[[int, Row], list[Record]]) -> Iterator[Record | Rejection]:
        """Yield what ``make(number, row)`` gives for each row of the first file, or its rejection.

        ``make`` raises ``RowError`` for a row that cannot be converted.
        """
        for number, row in enumerate(self.tables[0]):
            try:
                made = make(number, check_row(row))
            except RowError as error:
                yield self.rejection(number, error)
            else:
                yield from self.usable(made, [number])

    def usable(
        self, records: Sequence[Record], rows: Sequence[int]
    ) -> Iterator[Record | Rejection]:
        """Yield one scene's ``records``; of a scene that is left out, its ``rows`` as rejected."""
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


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark: its files and its converter.

    Attributes:
        name: as in file names and on the command line.
        paper: where it was published.
        dataset: its name in LLaVA-style files.
        files: annotation files; the first one's rows are converted.
        splits: splits that ``files`` exist for.
        evaluation_split: the split that scores are published for.
        published: per split, the sizes by which a full published file is known and checked.
        convert: yields a record or a rejection at a time.
    """

    name: str
    paper: str
    dataset: str
    files: tuple[AnnotationFile, ...]
    splits: tuple[str, ...]
    evaluation_split: str
    published: Mapping[str, Published]
    convert: Callable[[Source], Iterator[Record | Rejection]]
