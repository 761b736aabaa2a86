"""Metrics of all runs to one table: ``summary.csv`` (a row a run) and ``summary.json`` (richer).

Runs that differ in nothing but their training seed form a group with mean and standard deviation;
a run on its own has no standard deviation, because one number has no spread.
"""

import csv
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.evaluation.registry import BENCHMARKS, benchmark_named
from threedrs.evaluation.score import FORMAT_VERSION as METRICS_VERSION
from threedrs.files import atomic_file, read_json, sha256_of_file, sha256_of_json, write_json

FORMAT_VERSION = 1
# Sections of a run's config.json that hold its name and the paths that follow from it.
_RUN_NAMES = ("run", "paths")


def read_metrics(path: Path, run: str, benchmark: str) -> dict[str, Any]:
    """Return the metrics file of a run and benchmark.

    Raises:
        DataError: it is missing, malformed, or of another run, benchmark or format version.
    """
    result = read_json(path)
    if not isinstance(result, dict) or result.get("format_version") != METRICS_VERSION:
        raise DataError(f"{path}: is not a metrics file of format version {METRICS_VERSION}")
    for name, expected in (("run", run), ("benchmark", benchmark)):
        if result.get(name) != expected:
            raise DataError(f"{path}: {name} is {result.get(name)!r}, expected {expected!r}")
    missing = [name for name in BENCHMARKS[benchmark].metrics if name not in result["metrics"]]
    if missing:
        raise DataError(f"{path}: has no metric {missing[0]!r}; score the predictions again")
    return result


def aggregate(
    metrics_files: Mapping[tuple[str, str], Path],
    *,
    baseline: str,
    out_csv: Path,
    out_json: Path,
    train_summaries: Mapping[str, Path],
    run_configs: Mapping[str, Path],
) -> dict[str, Any]:
    """Write both summaries and return the content of the JSON one.

    Args:
        metrics_files: (run, benchmark) to ``metrics.json``.
        baseline: the run that the others are compared with.
        out_csv: one row a run; columns ``<benchmark>:<metric>`` and the same with ``:low``,
            ``:high``; a cell without a value is empty.
        out_json: see README; per run the metrics, deltas to the baseline, settings and training
            summary; groups of runs that differ in the seed only.
        train_summaries: run to ``train.json``.
        run_configs: run to its resolved ``config.json``.

    Raises:
        ConfigError: unknown benchmark.
        DataError: a file is missing or malformed, there are no metrics, or none of the baseline.
    """
    runs = list(dict.fromkeys(run for run, _ in metrics_files))
    if not runs:
        raise DataError("aggregate: there are no metrics files; run the evaluation first")
    if baseline not in runs:
        raise DataError(
            f"aggregate: the baseline {baseline!r} has no metrics; choose one of {', '.join(runs)}"
        )
    results: dict[str, dict[str, Any]] = {run: {} for run in runs}
    for (run, benchmark), path in metrics_files.items():
        benchmark_named(benchmark)
        results[run][benchmark] = read_metrics(path, run, benchmark)
    configs = {run: read_json(path) for run, path in run_configs.items()}
    summary = {
        "format_version": FORMAT_VERSION,
        "baseline": baseline,
        "benchmarks": [name for name in BENCHMARKS if any(name in r for r in results.values())],
        "runs": {
            run: {
                "benchmarks": results[run],
                "deltas": {} if run == baseline else _deltas(results[run], results[baseline]),
                "train": read_json(train_summaries[run]) if run in train_summaries else None,
                "config": configs.get(run),
            }
            for run in runs
        },
        "groups": _groups({run: configs[run] for run in runs if run in configs}, results),
        "sources": {
            f"{run}/{benchmark}": sha256_of_file(path)
            for (run, benchmark), path in metrics_files.items()
        },
    }
    _write_csv(out_csv, summary)
    write_json(out_json, summary)
    return summary


def _values(result: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: estimate["value"] for name, estimate in result["metrics"].items()}


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _deltas(
    run: Mapping[str, Any], baseline: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Return run minus baseline, in percentage points; null where one of them has no value."""
    deltas: dict[str, dict[str, float | None]] = {}
    for benchmark, result in run.items():
        if benchmark not in baseline:
            continue
        others = _values(baseline[benchmark])
        deltas[benchmark] = {
            name: _difference(value, others.get(name)) for name, value in _values(result).items()
        }
    return deltas


def _groups(
    configs: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the groups of runs that differ in ``train.seed`` only, in the order of the runs."""
    members: dict[str, list[str]] = {}
    for run, config in configs.items():
        seedless = {name: config[name] for name in config if name not in _RUN_NAMES}
        seedless["train"] = {k: v for k, v in config["train"].items() if k != "seed"}
        members.setdefault(sha256_of_json(seedless), []).append(run)
    return [
        {"runs": runs, "metrics": _mean_and_deviation([results[run] for run in runs])}
        for runs in members.values()
    ]


def _mean_and_deviation(members: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and sample standard deviation of each metric that every member has."""
    shared = [name for name in members[0] if all(name in member for member in members)]
    spread: dict[str, dict[str, Any]] = {}
    for benchmark in shared:
        spread[benchmark] = {}
        for metric in members[0][benchmark]["metrics"]:
            values = [_values(member[benchmark]).get(metric) for member in members]
            numbers = [value for value in values if value is not None]
            if len(numbers) == len(members):
                deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
                spread[benchmark][metric] = {"mean": statistics.fmean(numbers), "std": deviation}
    return spread


def _columns(benchmarks: Iterable[str]) -> list[tuple[str, str, str]]:
    return [
        (benchmark, metric, bound)
        for benchmark in benchmarks
        for metric in BENCHMARKS[benchmark].metrics
        for bound in ("value", "low", "high")
    ]


def _write_csv(path: Path, summary: Mapping[str, Any]) -> None:
    columns = _columns(summary["benchmarks"])
    heads = [f"{b}:{m}" if bound == "value" else f"{b}:{m}:{bound}" for b, m, bound in columns]
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *heads])
        for run, entry in summary["runs"].items():
            estimates = (
                entry["benchmarks"].get(b, {}).get("metrics", {}).get(m, {}).get(bound)
                for b, m, bound in columns
            )
            writer.writerow([run, *("" if v is None else f"{v:.4f}" for v in estimates)])
