"""The prediction row, which inference hands to scoring: one JSON object a line, and its files.

A text row carries `prediction` and `references`; a grounding row carries the score of every
proposal and, last, of the zero target, with the proposal boxes and the true boxes. Boxes are
(cx, cy, cz, dx, dy, dz), axis-aligned, metres. Beside ``predictions.jsonl`` lies
``predictions.meta.json``, written last, which says how many questions there are.

While a run is not finished, each rank appends to its own ``predictions.partial.jsonl``,
``predictions.partial.1.jsonl`` and so on. The first line says what the answers depend on (model,
records, settings, scenes, code); a file with another first line is removed. A line that a kill cut
off is dropped, and so is what follows it.

Reading checks every row and names the line that is wrong. About 1 s for 10,000 rows of 50 boxes.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threedrs.errors import DataError, write_problem
from threedrs.io.files import check_encodable, read_json, read_json_lines, write_json_lines

if TYPE_CHECKING:
    from threedrs.tasks.base import Task

FORMAT_VERSION = 1


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 6))


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
    boxes: np.ndarray = field(default_factory=_no_boxes)  # (N, 6) float64 proposal boxes
    # (M, 6) float64 true boxes; none for a zero-target question.
    gt: np.ndarray = field(default_factory=_no_boxes)

    def to_json(self) -> dict[str, Any]:
        """Return the row as written to ``predictions.jsonl``."""
        return {
            "format_version": FORMAT_VERSION,
            "id": self.id,
            "benchmark": self.benchmark,
            "scene": self.scene,
            "question_type": self.question_type,
            "prediction": self.prediction,
            "references": list(self.references),
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
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expected a JSON object, found {type(row).__name__}")
        version = _field(row, "format_version", where)
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise DataError(
                f"{where}: format_version is {version!r}, this threedrs reads {FORMAT_VERSION}"
            )
        name = _text(row, "benchmark", where)
        if name != task.name:
            raise DataError(f"{where}: is a row of {name!r}, expected {task.name!r}")
        identity: dict[str, Any] = {name: _text(row, name, where) for name in ("id", "scene")}
        for name, text in identity.items():
            if not text:
                raise DataError(f"{where}: {name} is empty")
        typed = row.get("question_type") is not None
        identity["question_type"] = _text(row, "question_type", where) if typed else None
        identity["benchmark"] = task.name
        if not task.grounding:
            return cls(
                **identity,
                prediction=_text(row, "prediction", where),
                references=_references(row, where),
            )
        boxes = _boxes(row, "boxes", where)
        scores = _numbers(_field(row, "scores", where), "scores", where)
        if scores.shape != (len(boxes) + 1,):
            raise DataError(
                f"{where}: expected {len(boxes) + 1} scores ({len(boxes)} boxes and the zero "
                f"target), found shape {scores.shape}"
            )
        gt = _boxes(row, "gt", where)
        if task.objects == "one" and len(gt) != 1:
            raise DataError(
                f"{where}: gt must hold exactly one true box in {task.title}, found {len(gt)}"
            )
        return cls(**identity, scores=scores, boxes=boxes, gt=gt)


def _field(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise DataError(f"{where}: field {name!r} is missing")
    return row[name]


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = _field(row, name, where)
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} must be text, found {_kind(value)}")
    return check_encodable(value, name, where)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _references(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = _field(row, "references", where)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{where}: references must be a list of texts")
    if not any(text.strip() for text in value):
        raise DataError(f"{where}: references holds no text to compare with")
    return tuple(check_encodable(text, "references", where) for text in value)


def _numbers(value: Any, name: str, where: str) -> np.ndarray:
    if not isinstance(value, list):
        raise DataError(f"{where}: {name} must be a list of numbers, found {_kind(value)}")
    try:
        array = np.array(value if value else np.zeros(0))
    except ValueError as error:
        raise DataError(f"{where}: {name} has rows of different length") from error
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: {name} must hold numbers only")
    array = array.astype(np.float64)
    # The sum is finite in nearly all rows, and much cheaper than a look at each number.
    if not math.isfinite(array.sum()) and not np.isfinite(array).all():
        raise DataError(f"{where}: {name} holds a value that is not finite")
    return array


def _boxes(row: Mapping[str, Any], name: str, where: str) -> np.ndarray:
    boxes = _numbers(_field(row, name, where), name, where)
    if len(boxes) == 0:
        return _no_boxes()
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise DataError(f"{where}: {name} must be a list of boxes of 6 numbers each")
    if (boxes[:, 3:] < 0).any():
        raise DataError(f"{where}: {name} holds a box of negative size")
    return boxes


def meta_path(path: Path) -> Path:
    """Return where the meta file of a predictions file lies."""
    return Path(path).with_suffix(".meta.json")


def read_meta(path: Path) -> dict[str, Any] | None:
    """Return the meta file beside the predictions file ``path``, or None if there is none.

    Raises:
        DataError: it is there but malformed or of another format version.
    """
    meta_file = meta_path(path)
    if not meta_file.exists():
        return None
    meta = read_json(meta_file)
    if not isinstance(meta, dict) or meta.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{meta_file}: is not a meta file of format version {FORMAT_VERSION}")
    check_encodable(json.dumps(meta, ensure_ascii=False), "a text", str(meta_file))
    left_out = meta.get("left_out", {"questions": 0, "scenes": []})
    if not isinstance(left_out, dict) or not {"questions", "scenes"} <= left_out.keys():
        raise DataError(f"{meta_file}: left_out must say how many questions are left out, and why")
    count = meta.get("n")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise DataError(f"{meta_file}: n must say how many questions there are, found {count!r}")
    return meta


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
            raise DataError(f"{where}: id {row.id!r} already stands on line {lines[row.id]}")
        lines[row.id] = number
        rows.append(row)
    meta = read_meta(path)
    if meta is not None and meta["n"] != len(rows):
        raise DataError(
            f"{path}: holds {len(rows)} of {meta['n']} questions (says {meta_path(path).name}); "
            "a partial file is not scored: rerun predict to finish it"
        )
    if not rows and not (meta and meta.get("unanswered")):
        raise DataError(f"{path}: holds no predictions")
    return rows


def write_predictions(path: Path, rows: Iterable[Prediction]) -> int:
    """Write the rows as JSON lines, whole or not at all; return their number."""
    return write_json_lines(path, (row.to_json() for row in rows))


def partial_path(out: Path, rank: int) -> Path:
    """Return the partial file of a rank."""
    return out.with_suffix(f".partial{f'.{rank}' if rank else ''}{out.suffix}")


def partial_files(out: Path) -> list[Path]:
    """Return the partial files that exist, also those of ranks that this run does not have."""
    return sorted(out.parent.glob(f"{out.stem}.partial*{out.suffix}"))


def remove_foreign(out: Path, header: Mapping[str, str]) -> list[str]:
    """Remove the partial files with another header; return for each a line on what differs."""
    notes = []
    for path in partial_files(out):
        found, _ = _complete_lines(path)
        # Without a whole first line nothing is known of what follows, so everything differs.
        first = found[0] if found and isinstance(found[0], dict) else {}
        previous = first.get("header", {})
        differing = [name for name in header if previous.get(name) != header[name]]
        if differing:
            path.unlink()
            differ = ", ".join(differing)
            notes.append(f"{path}: its answers are of another {differ}; starting over")
    return notes


def read_partial(out: Path, task: "Task") -> dict[str, Prediction]:
    """Return the finished answers of all partial files, by question id."""
    by_scene: dict[str, dict[str, Prediction]] = {}
    for path in partial_files(out):
        found: dict[str, dict[str, Prediction]] = {}
        for number, value in enumerate(_complete_lines(path)[0][1:], start=2):
            row = Prediction.from_json(value, task, f"{path}: line {number}")
            found.setdefault(row.scene, {})[row.id] = row
        # A scene may have been cut off in one file and asked again as a whole into another, after
        # the number of ranks has changed. Only the answers of the fuller file count, because scores
        # depend in their last bits on the questions asked together.
        for scene, rows in found.items():
            if len(rows) > len(by_scene.get(scene, {})):
                by_scene[scene] = rows
    return {name: row for rows in by_scene.values() for name, row in rows.items()}


def _complete_lines(path: Path) -> tuple[list[Any], int]:
    """Return the values of the lines before the first broken one, and their size in bytes."""
    values: list[Any] = []
    end = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                if not line.endswith(b"\n"):
                    break
                values.append(json.loads(line))
            except (ValueError, RecursionError):
                break
            end += len(line)
    return values, end


@contextmanager
def partial_writer(
    out: Path, rank: int, header: Mapping[str, str]
) -> Iterator[Callable[[Iterable[Prediction]], None]]:
    """Yield a function that appends a rank's finished answers, which are on disk when it returns.

    The function raises DataError if the disk is full or the file cannot be written.
    """
    path = partial_path(out, rank)
    with path.open("a", encoding="utf-8") as stream:
        kept, end = _complete_lines(path)
        stream.truncate(end)  # a row behind half a line would be lost when the file is read

        def append(values: Iterable[dict[str, Any]]) -> None:
            lines = (json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values)
            try:
                stream.write("".join(f"{line}\n" for line in lines))
                stream.flush()
                os.fsync(stream.fileno())
            except OSError as error:
                raise DataError(
                    f"{path}: {write_problem(error)} (finished scenes are kept)"
                ) from error

        if not kept:
            append([{"format_version": FORMAT_VERSION, "header": dict(header)}])
        yield lambda rows: append(row.to_json() for row in rows)
