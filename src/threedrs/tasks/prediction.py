"""The prediction row, which inference hands to scoring: one JSON object a line, and its files.

A text row carries `prediction` and `references`; a grounding row carries the score of every
proposal and, last, of the zero target, with the proposal boxes and the true boxes. Boxes are
(cx, cy, cz, dx, dy, dz), axis-aligned, metres. Beside ``predictions.jsonl`` lies
``predictions.meta.json``, written last, which says how many questions there are.

Reading checks every row and names the line that is wrong. About 2 s for 10,000 rows of 50 boxes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, ExternalText, check_external
from threedrs.io.files import read_json_lines, read_result, write_json_lines

if TYPE_CHECKING:
    from threedrs.tasks.base import Task

FORMAT_VERSION = 1
ROW_REMEDY = "mend the row, or predict again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """One answered question."""

    id: str  # the question's id, unique within a file
    benchmark: str  # the benchmark's name
    scene: str  # the ScanNet scene; the cluster of the bootstrap
    question_type: str | None = None  # the benchmark's own type of question, if it has any
    prediction: str | None = None  # the model's text; None in a grounding row
    references: tuple[str, ...] = ()  # the true texts; empty in a grounding row
    # (N+1,) float64 cosine scores, the zero target last; None in a text row.
    scores: np.ndarray | None = None
    # (N, 6) float64 proposal boxes, and (M, 6) true boxes, none for a zero-target question.
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))
    gt: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))

    def to_json(self) -> dict[str, Any]:
        """Return the row as written to ``predictions.jsonl``."""
        return {
            "format_version": FORMAT_VERSION,
            **vars(self),
            "scores": None if self.scores is None else self.scores.tolist(),
            "boxes": self.boxes.tolist(),
            "gt": self.gt.tolist(),
        }

    @classmethod
    def from_json(cls, row: Any, task: "Task", where: str) -> "Prediction":
        """Return the checked row of ``task``; ``where`` names file and line in the error.

        Raises:
            DataError: a field is missing, of the wrong type or size, or not finite; the row is of
                another format version or another benchmark.
        """
        other = row.get("benchmark", task.name) if isinstance(row, Mapping) else task.name
        if other != task.name:
            raise DataError(f"{where}: is a row of {other!r}, expected {task.name!r}; {ROW_REMEDY}")
        found: _Grounding | _Told
        answer: dict[str, Any]
        if task.grounding:
            found = boxed = check_external(row, _Grounding, where, ROW_REMEDY)
            answer = grounding_arrays(boxed.scores, boxed.boxes, boxed.gt, task, where)
        else:
            found = told = check_external(row, _Told, where, ROW_REMEDY)
            answer = {"prediction": told.prediction, "references": tuple(told.references)}
        return cls(
            id=found.id,
            benchmark=task.name,
            scene=found.scene,
            question_type=found.question_type,
            **answer,
        )


def _some_text(texts: list[str]) -> list[str]:
    if not any(text.strip() for text in texts):
        raise ValueError("holds no text to compare with")
    return texts


def _check_box(box: list[float]) -> list[float]:
    if len(box) != 6 or min(box[3:]) < 0:
        raise ValueError("expected six numbers, centre and size, and no size below 0")
    return box


Name = Annotated[ExternalText, Field(min_length=1)]
References = Annotated[list[ExternalText], AfterValidator(_some_text)]
Box = Annotated[list[float], AfterValidator(_check_box)]


class _Identity(ExternalRow):
    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
    id: Name
    benchmark: str
    scene: Name
    question_type: ExternalText | None = None


class _Told(_Identity):
    prediction: ExternalText
    references: References


class _Grounding(_Identity):
    scores: list[float]
    boxes: list[Box]
    gt: list[Box]


def grounding_arrays(
    scores: list[float], boxes: list[list[float]], gt: list[list[float]], task: "Task", where: str
) -> dict[str, np.ndarray]:
    """Return the arrays of a grounding row, whose numbers are checked to fit each other.

    Raises:
        DataError: there is no score a box and one more, or more or fewer than the one true box.
    """
    if len(scores) != len(boxes) + 1:
        raise DataError(
            f"{where}: expected {len(boxes) + 1} scores ({len(boxes)} boxes and the zero target), "
            f"found {len(scores)}; {ROW_REMEDY}"
        )
    if task.objects == "one" and len(gt) != 1:
        raise DataError(
            f"{where}: {task.title} has exactly one true box a question, found {len(gt)}; "
            f"{ROW_REMEDY}"
        )
    return {
        "scores": np.array(scores),
        "boxes": np.array(boxes).reshape(-1, 6),
        "gt": np.array(gt).reshape(-1, 6),
    }


def meta_path(path: Path) -> Path:
    """Return where the meta file of a predictions file lies."""
    return path.with_suffix(".meta.json")


def read_meta(path: Path) -> dict[str, Any] | None:
    """Return the meta file beside the predictions file ``path``, or None if there is none.

    Raises:
        DataError: it is there but malformed or of another format version.
    """
    meta_file = meta_path(path)
    return read_result(meta_file, FORMAT_VERSION, "scores") if meta_file.exists() else None


def read_predictions(
    path: Path,
    task: "Task",
    *,
    parse: Callable[[Any, "Task", str], Prediction] = Prediction.from_json,
) -> list[Prediction]:
    """Return the rows of a predictions file, in its order; ``parse`` turns a line into a row.

    A file with a meta file beside it must hold as many rows as that says; a file that stands alone
    is taken as it is.

    Raises:
        DataError: a line is malformed, an id repeats, a row is of another benchmark, the file is
            partial, or empty though its meta file does not say that nothing was answered.
    """
    rows: list[Prediction] = []
    lines: dict[str, int] = {}
    for number, value in enumerate(read_json_lines(path), start=1):
        where = f"{path}: line {number}"
        row = parse(value, task, where)
        if row.id in lines:
            raise DataError(
                f"{where}: id {row.id!r} already stands on line {lines[row.id]}; keep one of them"
            )
        lines[row.id] = number
        rows.append(row)
    meta = read_meta(path)
    if meta is not None and meta.get("n") != len(rows):
        raise DataError(
            f"{path}: holds {len(rows)} of {meta.get('n')} questions (says "
            f"{meta_path(path).name}); a partial file is not scored: rerun predict to finish it"
        )
    if not rows and not (meta and meta.get("unanswered")):
        raise DataError(f"{path}: holds no predictions; make them again")
    return rows


def write_predictions(path: Path, rows: Iterable[Prediction]) -> int:
    """Write the rows as JSON lines, whole or not at all; return their number."""
    return write_json_lines(path, (row.to_json() for row in rows))
