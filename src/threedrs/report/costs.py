"""What the stages and runs cost: time, memory, processor and GPU hours.

Snakemake writes a benchmark file a job, a table of one row: `s` (wall seconds), `max_rss` (MB, of
the job's program and all it started), `cpu_time` (seconds). A job that ended within half a second
was not measured.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from threedrs.errors import DataError
from threedrs.report.results import Results


def stage_costs(folder: Path) -> list[dict[str, Any]]:
    """Return the cost of each stage, the longest first; ``folder`` is ``results/benchmarks``.

    A stage has its number of ``jobs``, the ``seconds``, ``cpu_seconds`` of all of them, those of
    the ``longest``, and the ``memory`` of the largest, MB.

    Raises:
        DataError: a file is not a benchmark file of Snakemake.
    """
    tables = []
    for path in sorted(folder.rglob("*.tsv")):
        try:
            table = pd.read_csv(path, sep="\t", na_values="-")
            seconds = table["s"].astype(float)
            # Versions of Snakemake differ in the columns that they write, so these go by name.
            others = table.reindex(columns=["cpu_time", "max_rss"]).astype(float)
        except pd.errors.EmptyDataError:  # its job was killed, or the disk was full
            continue
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{path}: is not a benchmark file of Snakemake; remove it, and it comes back when "
                "its job runs again"
            ) from error
        stage = path.relative_to(folder).parts[0].removesuffix(".tsv")
        tables.append(others.assign(s=seconds, stage=stage))
    if not tables:
        return []
    stages = pd.concat(tables).fillna(0.0).groupby("stage", as_index=False)
    costs = stages.agg(
        jobs=("s", "size"),
        seconds=("s", "sum"),
        longest=("s", "max"),
        cpu_seconds=("cpu_time", "sum"),
        memory=("max_rss", "max"),
    )
    rows = costs.sort_values("seconds", ascending=False).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def run_costs(results: Results) -> list[dict[str, Any]]:
    """Return the cost of each run: its training, if it has one, and all that it predicted.

    ``gpu_hours`` is None where no GPU was used.
    """
    costs = []
    for run in results.runs:
        train = results.train(run)
        # Controls are asked of the same model, and take as long as their benchmark.
        asked = [results.metrics(run, name) for name in results.benchmarks] + results.controls(run)
        metas = [metrics["provenance"]["predictions_meta"] or {} for metrics in asked]
        timings = [meta.get("timing", {}) for meta in metas]
        ranks = sum(timing.get("seconds", 0.0) * timing.get("ranks", 1) for timing in timings)
        on_gpu = any(timing.get("device") == "cuda" for timing in timings)
        if train is not None:
            on_gpu, ranks = train["device"] != "CPU", ranks + train["rank_seconds"]
        costs.append(
            {
                "run": run,
                "train": train,
                "predict_seconds": sum(timing.get("seconds", 0.0) for timing in timings),
                "questions": sum(metrics["n"] for metrics in asked),
                "gpu_hours": ranks / 3600 if on_gpu else None,
            }
        )
    return costs
