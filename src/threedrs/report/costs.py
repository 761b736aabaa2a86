"""What the stages and runs cost: time, memory, processor and GPU hours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.report.results import Results
from threedrs.workflow.job_usage import read_job_records


@dataclass(kw_only=True)
class StageCost:
    """The jobs of one stage, from Snakemake's benchmark files."""

    stage: str
    jobs: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    cpu_seconds: float = 0.0
    memory: float = 0.0  # of the largest job, MB


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """One run: training and prediction."""

    run: str
    train: dict[str, Any]
    predict_seconds: float
    questions: int
    gpu_hours: float | None  # None: no GPU was used


def stage_costs(folder: Path) -> list[StageCost]:
    """Return the cost of each stage; ``folder`` is ``results/benchmarks``."""
    stages: dict[str, StageCost] = {}
    for job in read_job_records(folder):
        stage = stages.setdefault(job.rule, StageCost(stage=job.rule))
        stage.jobs += 1
        stage.seconds += job.seconds
        stage.longest = max(stage.longest, job.seconds)
        stage.cpu_seconds += job.cpu_seconds
        stage.memory = max(stage.memory, job.memory)
    return sorted(stages.values(), key=lambda stage: -stage.seconds)


def run_costs(results: Results) -> list[RunCost]:
    """Return the cost of each run."""
    costs = []
    for run in results.runs:
        train = results.train(run)
        timings = []
        for benchmark in results.benchmarks:
            meta = results.metrics(run, benchmark)["provenance"]["predictions_meta"] or {}
            timings.append(meta.get("timing", {}))
        seconds = sum(timing.get("seconds", 0.0) for timing in timings)
        ranks = sum(timing.get("seconds", 0.0) * timing.get("ranks", 1) for timing in timings)
        hours = (train["rank_seconds"] + ranks) / 3600
        costs.append(
            RunCost(
                run=run,
                train=train,
                predict_seconds=seconds,
                questions=sum(results.metrics(run, name)["n"] for name in results.benchmarks),
                gpu_hours=None if train["device"] == "CPU" else hours,
            )
        )
    return costs
