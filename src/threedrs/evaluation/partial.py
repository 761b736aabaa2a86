"""Finished answers of an unfinished run: appended as they come, read again after a kill.

Each rank appends to a file of its own beside the final one, ``predictions.partial.jsonl`` and
``predictions.partial.<rank>.jsonl``. The first line says what the answers depend on (model,
records, settings, scenes, code); answers under another first line are of no use and are removed.
A line cut off by a kill, and whatever follows it, is dropped.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from threedrs.errors import DataError, write_problem
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import FORMAT_VERSION, Prediction


def partial_path(out: Path, rank: int) -> Path:
    """Return the partial file of a rank."""
    return out.with_suffix(f".partial{f'.{rank}' if rank else ''}{out.suffix}")


def partial_files(out: Path) -> list[Path]:
    """Return the partial files that are there, of any number of ranks."""
    return sorted(out.parent.glob(f"{out.stem}.partial*{out.suffix}"))


def remove_foreign(out: Path, header: Mapping[str, str]) -> list[str]:
    """Remove partial files with another header; return a line each that says what differs."""
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
    """Return the finished answers of all partial files, by question id.

    A scene that was cut off in one file, and asked again as a whole into another, has its answers
    from the second alone: scores depend, in their last bits, on the questions asked together.
    """
    by_scene: dict[str, dict[str, Prediction]] = {}
    for path in partial_files(out):
        values, _ = _complete_lines(path)
        found: dict[str, dict[str, Prediction]] = {}
        for number, value in enumerate(values[1:], start=2):
            row = Prediction.from_json(value, task, f"{path}: line {number}")
            found.setdefault(row.scene, {})[row.id] = row
        for scene, rows in found.items():
            if len(rows) > len(by_scene.get(scene, {})):
                by_scene[scene] = rows
    return {name: row for rows in by_scene.values() for name, row in rows.items()}


def _complete_lines(path: Path) -> tuple[list[Any], int]:
    """Return the values of the leading whole lines, and how many bytes these take."""
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


class PartialWriter:
    """Appends a rank's finished answers; a context manager.

    Raises:
        DataError: the disk is full or the file cannot be written.
    """

    def __init__(self, out: Path, rank: int, header: Mapping[str, str]) -> None:
        self.path = partial_path(out, rank)
        self._header = header

    def __enter__(self) -> "PartialWriter":
        if self.path.exists():
            values, end = _complete_lines(self.path)
            os.truncate(self.path, end)
        else:
            values = []
        self._stream = self.path.open("a", encoding="utf-8")
        if not values:
            self._append([{"format_version": FORMAT_VERSION, "header": dict(self._header)}])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def add(self, rows: Iterable[Prediction]) -> None:
        """Append the rows; they are on disk when this returns."""
        self._append([row.to_json() for row in rows])

    def _append(self, values: list[dict[str, Any]]) -> None:
        lines = (json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values)
        try:
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise DataError(
                f"{self.path}: {write_problem(error)} (finished scenes are kept)"
            ) from error
