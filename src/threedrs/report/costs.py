"""What the stages and runs cost: time, memory, processor and GPU hours.

Snakemake writes a benchmark file a job, a table of one row: `s` (wall seconds), `max_rss` (MB, of
the job's program and all it started), `cpu_time` (seconds). A job that ended within half a second
was not measured.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import read_text
from threedrs.report.results import Results

_NOT_MEASURED = ("", "-", "NA")


@dataclass(kw_only=True)
class StageCost:
    """The jobs of one stage."""

    stage: str
    jobs: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    cpu_seconds: float = 0.0
    memory: float = 0.0  # MB, largest job


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """One run: its training, unless it evaluates a checkpoint as it is, and all it predicted."""

    run: str
    train: dict[str, Any] | None
    predict_seconds: float
    questions: int
    gpu_hours: float | None  # None: no GPU was used


def stage_costs(folder: Path) -> list[StageCost]:
    """Return the cost of each stage, the longest first; ``folder`` is ``results/benchmarks``.

    Raises:
        DataError: a file is not a benchmark file of Snakemake.
    """
    stages: dict[str, StageCost] = {}
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder).parts[0].removesuffix(".tsv")
        stage = stages.setdefault(name, StageCost(stage=name))
        head, *lines = read_text(path).splitlines() or [""]
        for line in lines:
            # Versions of Snakemake differ in the columns that they write, so these go by name.
            row = dict(zip(head.split("\t"), line.split("\t"), strict=False))
            try:
                seconds = _number(row["s"])
                cpu_seconds, memory = (_number(row.get(key, "")) for key in ("cpu_time", "max_rss"))
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"{path}: is not a benchmark file of Snakemake; remove it, and it comes back "
                    "when its job runs again"
                ) from error
            stage.jobs += 1
            stage.seconds += seconds
            stage.longest = max(stage.longest, seconds)
            stage.cpu_seconds += cpu_seconds
            stage.memory = max(stage.memory, memory)
    return sorted(stages.values(), key=lambda stage: -stage.seconds)


def _number(text: str) -> float:
    return 0.0 if text in _NOT_MEASURED else float(text)


def run_costs(results: Results) -> list[RunCost]:
    """Return the cost of each run."""
    costs = []
    for run in results.runs:
        train = results.train(run)
        # Controls are asked of the same model, and take as long as their benchmark.
        asked = [results.metrics(run, name) for name in results.benchmarks] + results.controls(run)
        metas = [metrics["provenance"]["predictions_meta"] or {} for metrics in asked]
        timings = [meta.get("timing", {}) for meta in metas]
        seconds = sum(timing.get("seconds", 0.0) for timing in timings)
        ranks = sum(timing.get("seconds", 0.0) * timing.get("ranks", 1) for timing in timings)
        on_gpu = any(timing.get("device") == "cuda" for timing in timings)
        if train is not None:
            on_gpu, ranks = train["device"] != "CPU", ranks + train["rank_seconds"]
        costs.append(
            RunCost(
                run=run,
                train=train,
                predict_seconds=seconds,
                questions=sum(metrics["n"] for metrics in asked),
                gpu_hours=ranks / 3600 if on_gpu else None,
            )
        )
    return costs
