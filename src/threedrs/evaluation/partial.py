"""Finished answers of an unfinished run: appended as they come, read again after a kill.

Each rank appends to its own file beside the final one: ``predictions.partial.jsonl``,
``predictions.partial.1.jsonl`` and so on. The first line says what the answers depend on (model,
records, settings, scenes, code); a file with another first line is removed. A line that a kill cut
off is dropped, and so is what follows it.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threedrs.errors import DataError, write_problem
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import FORMAT_VERSION, Prediction


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
        previous = found[0].get("header") if found and isinstance(found[0], dict) else None
        if previous == header:
            continue
        previous = previous if isinstance(previous, dict) else {}
        differing = [name for name in header if previous.get(name) != header[name]]
        path.unlink()
        notes.append(f"{path}: its answers are of another {', '.join(differing)}; starting over")
    return notes


def read_partial(out: Path, task: Task) -> dict[str, Prediction]:
    """Return the finished answers of all partial files, by question id."""
    by_scene: dict[str, dict[str, Prediction]] = {}
    for path in partial_files(out):
        values, _ = _complete_lines(path)
        found: dict[str, dict[str, Prediction]] = {}
        for number, value in enumerate(values[1:], start=2):
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
    path, kept = partial_path(out, rank), False
    if path.exists():
        values, end = _complete_lines(path)
        os.truncate(path, end)  # a row behind half a line would be lost when the file is read
        kept = bool(values)
    with path.open("a", encoding="utf-8") as stream:

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
