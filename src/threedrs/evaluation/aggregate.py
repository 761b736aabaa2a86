"""Metrics of all runs to one summary: ``summary.csv`` (a row a run), ``.json``, ``.tex``, ``.md``.

Runs that differ in nothing but their training seed form a group with mean and standard deviation;
a run on its own has no standard deviation, because one number has no spread. Every run, and every
group, is compared with the baseline question by question (``compare``).
"""

import csv
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.evaluation.compare import (
    FEWEST_SCENES,
    LEVEL,
    PerQuestion,
    compare,
    holm,
    read_per_question,
)
from threedrs.evaluation.score import FORMAT_VERSION as METRICS_VERSION
from threedrs.evaluation.tables import latex_table, markdown_table, run_notes
from threedrs.io.files import (
    atomic_file,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)
from threedrs.metrics.bootstrap import SEED
from threedrs.tasks.registry import TASKS, find_task, headline_columns

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
    if not isinstance(result.get("metrics"), dict):
        raise DataError(f"{path}: has no metrics; score the predictions again")
    missing = [name for name in TASKS[benchmark].metrics if name not in result["metrics"]]
    if missing:
        raise DataError(f"{path}: has no metric {missing[0]!r}; score the predictions again")
    return result


def aggregate(
    metrics_files: Mapping[tuple[str, str], Path],
    *,
    per_question_files: Mapping[tuple[str, str], Path],
    baseline: str,
    resamples: int,
    out_csv: Path,
    out_json: Path,
    out_latex: Path,
    out_markdown: Path,
    train_summaries: Mapping[str, Path],
    run_configs: Mapping[str, Path],
) -> dict[str, Any]:
    """Write the summaries and return the content of the JSON one.

    Args:
        metrics_files: (run, benchmark) to ``metrics.json``.
        per_question_files: the same to ``per_question.npz``.
        baseline: the run that the others are compared with.
        resamples: of the paired bootstrap; 0: no intervals.
        out_csv: one row a run; ``<benchmark>:<metric>``, with ``:low``, ``:high``, and against
            the baseline ``:difference``, ``:p``, empty where there is no value; last ``notes``.
        out_json: what `_summarise` returns, and the hashes of the metrics files.
        out_latex: the headline metrics as a LaTeX table (booktabs).
        out_markdown: the same in Markdown.
        train_summaries: run to ``train.json``, of the runs that were trained.
        run_configs: run to its resolved ``config.json``.

    Raises:
        ConfigError: unknown benchmark.
        DataError: a file is missing or malformed, runs answered different questions, there are no
            metrics, or none of the baseline.
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
        find_task(benchmark)
        results[run][benchmark] = read_metrics(path, run, benchmark)
    questions = {
        (run, benchmark): read_per_question(path, TASKS[benchmark])
        for (run, benchmark), path in per_question_files.items()
        if not results[run][benchmark].get("unanswered")
    }
    configs = {run: read_json(path) for run, path in run_configs.items()}
    trained = {run: read_json(path) for run, path in train_summaries.items()}
    summary = _summarise(results, questions, configs, trained, baseline, resamples)
    summary["sources"] = {
        f"{run}/{benchmark}": sha256_of_file(path)
        for (run, benchmark), path in metrics_files.items()
    }
    _write_csv(out_csv, summary)
    write_text(out_latex, latex_table(summary))
    write_text(out_markdown, markdown_table(summary))
    write_json(out_json, summary)
    return summary


def _summarise(
    results: Mapping[str, dict[str, Any]],
    questions: Mapping[tuple[str, str], PerQuestion],
    configs: Mapping[str, Any],
    trained: Mapping[str, Any],
    baseline: str,
    resamples: int,
) -> dict[str, Any]:
    """Return per run the metrics, the comparison with the baseline, settings and training summary.

    Runs that differ in the seed alone form groups with mean, deviation and comparison.

    Args:
        results: run to benchmark to its metrics.
        questions: the questions' statistics by run and benchmark.
        configs: run to its resolved settings.
        trained: run to what its training reports.
        baseline: the run that the others are compared with.
        resamples: of the paired bootstrap.
    """
    groups = _groups(list(results), configs, baseline)
    return {
        "format_version": FORMAT_VERSION,
        "baseline": baseline,
        "benchmarks": [name for name in TASKS if any(name in r for r in results.values())],
        "comparison": {
            "resamples": resamples,
            "seed": SEED,
            "level": LEVEL,
            "fewest_scenes": FEWEST_SCENES,
        },
        "runs": {
            run: {
                "benchmarks": results[run],
                "deltas": {} if run == baseline else _deltas(results[run], results[baseline]),
                "comparison": _comparison([run], [baseline], questions, resamples),
                "train": trained.get(run),
                "config": configs.get(run),
            }
            for run in results
        },
        "groups": [
            {
                "name": _group_name(members),
                "runs": members,
                "seeds": [configs[run]["train"]["seed"] for run in members if run in configs],
                "metrics": _mean_and_deviation([results[run] for run in members]),
                "comparison": _comparison(members, groups[0], questions, resamples),
            }
            for members in groups
        ],
    }


def _group_name(members: list[str]) -> str:
    """Return the shortest name of runs that differ in their seed, and how many they are."""
    name = min(members, key=len)
    return name if len(members) == 1 else f"{name} ({len(members)} seeds)"


def _comparison(
    members: list[str],
    baselines: list[str],
    questions: Mapping[tuple[str, str], PerQuestion],
    resamples: int,
) -> dict[str, Any]:
    """Return benchmark -> metric -> difference, interval and p; headline metrics have ``p_holm``.

    ``p_holm`` is p corrected for the number of headline metrics that the runs are compared on.
    """
    if set(members) & set(baselines):
        return {}  # compared with itself, a run has no difference that means anything
    comparison = {
        benchmark: compare(
            [questions[run, benchmark] for run in members],
            [questions[run, benchmark] for run in baselines],
            resamples=resamples,
        )
        for benchmark in TASKS
        if all((run, benchmark) in questions for run in (*members, *baselines))
    }
    # Corrected over the headline metrics alone: the others are there to look at, not to claim.
    headline = {
        (column.benchmark, column.metric): comparison[column.benchmark][column.metric]["p"]
        for column in headline_columns()
        if column.metric in comparison.get(column.benchmark, {})
    }
    corrected = holm({key: p for key, p in headline.items() if p is not None})
    for benchmark, metric in headline:
        comparison[benchmark][metric]["p_holm"] = corrected.get((benchmark, metric))
    return comparison


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


def _groups(runs: list[str], configs: Mapping[str, Any], baseline: str) -> list[list[str]]:
    """Return the runs in groups that differ in ``train.seed`` only, the baseline's group first.

    Of runs that are equal in everything the first counts as a seed, each other as a group.
    """
    members: dict[str, list[str]] = {}
    known: set[str] = set()
    for run in runs:
        key = run
        if run in configs:
            config = configs[run]
            seedless = {name: config[name] for name in config if name not in _RUN_NAMES}
            whole = sha256_of_json(seedless)
            seedless["train"] = {k: v for k, v in config["train"].items() if k != "seed"}
            # The same run under two names is no second seed.
            key = run if whole in known else sha256_of_json(seedless)
            known.add(whole)
        members.setdefault(key, []).append(run)
    return sorted(members.values(), key=lambda group: baseline not in group)


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


_ESTIMATES = ("value", "low", "high")
_COMPARED = ("difference", "p")


def _write_csv(path: Path, summary: Mapping[str, Any]) -> None:
    metrics = [(b, m) for b in summary["benchmarks"] for m in TASKS[b].metrics]
    heads = [
        f"{b}:{m}" if field == "value" else f"{b}:{m}:{field}"
        for b, m in metrics
        for field in (*_ESTIMATES, *_COMPARED)
    ]
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *heads, "notes"])
        for run, entry in summary["runs"].items():
            cells: list[float | None] = []
            for b, m in metrics:
                estimate = entry["benchmarks"].get(b, {}).get("metrics", {}).get(m, {})
                compared = entry["comparison"].get(b, {}).get(m, {})
                cells += [estimate.get(field) for field in _ESTIMATES]
                cells += [compared.get(field) for field in _COMPARED]
            numbers = ["" if value is None else f"{value:.4f}" for value in cells]
            writer.writerow([run, *numbers, " ".join(run_notes(entry))])
