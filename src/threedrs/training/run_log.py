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
from typing import TYPE_CHECKING, Any

from threedrs.errors import DataError
from threedrs.io.files import read_json_lines, write_json_lines
from threedrs.training.checkpoints import LOG
from threedrs.training.wandb_logger import Tracker

if TYPE_CHECKING:
    from threedrs.training.run_setup import Run

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


def curves(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row, by the names of their curves."""
    values = {f"train/{name}": row[name] for name in row if name not in ("step", "eval")}
    for benchmark, metrics in row.get("eval", {}).items():
        values |= {f"eval/{benchmark}/{name}": value for name, value in metrics.items()}
    return {name: value for name, value in values.items() if value is not None}


class RunLog:
    """Writes and shows the rows of a run that begins, or goes on, after ``first_step``."""

    def __init__(self, run: "Run", first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.total_steps = run.total_steps
        self.first_step = first_step
        self.started = time.monotonic()
        out, wandb = run.paths.out, run.settings.wandb
        log = growing_log(out)
        # Rows past the checkpoint that the run resumes from come again.
        write_json_lines(log, read_rows(log, first_step))
        self._stream = log.open("a", encoding="utf-8")
        if first_step == 0:  # events of another recipe would share the curves
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
        self._events = SummaryWriter(str(out / "tensorboard"), purge_step=first_step + 1)
        self._tracker: Tracker | None = None
        if wandb is not None:
            self._tracker = Tracker(
                wandb,
                out,
                name=run.config["run"],
                config=run.config,
                config_hash=run.config_hash,
                warn=say,
            )

    def write(self, row: Mapping[str, Any]) -> None:
        """Write and show the row of a finished step."""
        step, values = row["step"], curves(row)
        self._stream.write(json.dumps(row, allow_nan=False) + "\n")
        self._stream.flush()  # so that a kill costs a line at most, which `read_rows` drops
        if self._tracker is not None:
            self._tracker.log(values, step)
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        scores = [f"{name[5:]} {values[name]:.1f}" for name in values if name.startswith("eval/")]
        if scores:
            say(f"step {step} {', '.join(scores)}")
        parts = " ".join(f"{name} {row[name]:.4f}" for name in PARTS if row[name] is not None)
        parts += f" {row['samples_per_second']:.2f} samples/s"
        if done := step - self.first_step:
            left = (time.monotonic() - self.started) / done * (self.total_steps - step)
            parts += f" ETA {left / 60:.1f} min"
        say(f"step {step}/{self.total_steps} {parts}")

    def close(self, *, failed: bool) -> None:
        """Close the files; W&B shows a run that was stopped as ``failed``, too."""
        self._stream.close()
        self._events.close()
        if self._tracker is not None:
            self._tracker.close(failed=failed)
