"""What a run says while it goes: log.jsonl, TensorBoard, W&B if asked for, and plain lines.

The first rank alone writes. A row is of a single step, not a mean over several, so that the rows of
a resumed run equal those of an uninterrupted one.
"""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import read_json_lines, write_json_lines
from threedrs.training.checkpoints import LOG
from threedrs.training.wandb_logger import Tracker

PARTS = ("loss", "text", "grounding", "supervision")


def growing_log(out: Path) -> Path:
    """Return the log that a run writes as it goes; export copies it to ``log.jsonl``."""
    # Beside the checkpoints, not where the copy goes: Snakemake removes the declared outputs of a
    # failed or repeated job, and the rows before the checkpoint would be lost.
    return out / "checkpoints" / LOG


def read_rows(log: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of log.jsonl, up to ``last_step``; a line cut off by a kill ends them."""
    rows: list[dict[str, Any]] = []
    if log.exists():
        with suppress(DataError):
            rows.extend(
                row for row in read_json_lines(log) if last_step is None or row["step"] <= last_step
            )
    return rows


def has_row(out: Path, step: int) -> bool:
    """Whether the growing log has the row of ``step``."""
    return any(row["step"] == step for row in read_rows(growing_log(out)))


def say(text: str) -> None:
    """Print one plain line for the log."""
    print(f"train: {text}", file=sys.stderr, flush=True)


def evaluation_text(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return the metrics of an evaluation in one line."""
    parts = []
    for benchmark, metrics in scores.items():
        known = [f"{name} {value:.1f}" for name, value in metrics.items() if value is not None]
        parts.append(" ".join([benchmark, *known]))
    return ", ".join(parts)


class RunLog:
    """Writes and shows the rows of a run from ``first_step`` on."""

    def __init__(
        self, out: Path, *, first_step: int, total_steps: int, tracker: Tracker | None = None
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.total_steps = total_steps
        self.first_step = first_step
        self._tracker = tracker
        self.started = time.monotonic()
        log = growing_log(out)
        # Rows past the checkpoint that the run resumes from come again.
        write_json_lines(log, read_rows(log, first_step))
        self._stream = log.open("a", encoding="utf-8")
        if first_step == 0:  # events of another recipe would share the curves
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
        self._events = SummaryWriter(str(out / "tensorboard"), purge_step=first_step + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write and show the row of a finished step."""
        parts = " ".join(f"{name} {row[name]:.4f}" for name in PARTS if row[name] is not None)
        parts += f" {row['samples_per_second']:.2f} samples/s"
        self._stream.write(json.dumps(row, allow_nan=False) + "\n")
        self._stream.flush()  # so that a kill costs a line at most, which `read_rows` drops
        if self._tracker is not None:
            self._tracker.log(row)
        scalars = {f"train/{name}": row[name] for name in row if name not in ("step", "eval")}
        for benchmark, metrics in row.get("eval", {}).items():
            scalars |= {f"eval/{benchmark}/{name}": metrics[name] for name in metrics}
        for name, value in scalars.items():
            if value is not None:
                self._events.add_scalar(name, value, row["step"])
        if "eval" in row:
            say(f"step {row['step']} {evaluation_text(row['eval'])}")
        if done := row["step"] - self.first_step:
            left = (time.monotonic() - self.started) / done * (self.total_steps - row["step"])
            parts += f" ETA {left / 60:.1f} min"
        say(f"step {row['step']}/{self.total_steps} {parts}")

    def close(self, *, failed: bool) -> None:
        """Close the files; W&B shows a run that was stopped as ``failed``, too."""
        self._stream.close()
        self._events.close()
        if self._tracker is not None:
            self._tracker.close(failed=failed)
