"""Metrics of all runs to one summary: ``summary.csv`` (a row a run), ``.json``, ``.tex``, ``.md``.

Runs that differ in nothing but their training seed are one setting, a group with mean and standard
deviation; a run on its own has no standard deviation, because one number has no spread. Every group
is compared with the baseline's group room by room (``compare``).
"""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.evaluation.compare import PerQuestion, compare, holm, read_per_question
from threedrs.evaluation.controls import CONTROLS, read_looking
from threedrs.evaluation.score import FORMAT_VERSION as METRICS_VERSION
from threedrs.evaluation.tables import latex_table, markdown_table, run_notes
from threedrs.evaluation.trivial_answers import mean_of, read_trivial_answers, summary_rows
from threedrs.io.files import (
    atomic_file,
    read_json,
    read_result,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)
from threedrs.metrics.setting_difference import FEWEST_SEEDS, LEVEL, POWER
from threedrs.tasks.registry import TASKS, find_task, headline_columns

FORMAT_VERSION = 2
# Sections of a run that are no setting of it: its name, the paths that follow from it, what it is
# asked on the way, and how it is carried out.
RUN_NAMES = ("run", "paths", "evaluation", "execution")
# Keys of two sections that shape no trained weight: a run differs by them in name alone.
_INERT = {"train": ("seed", "eval_every", "eval_samples"), "model": ("attention",)}


def read_metrics(path: Path) -> dict[str, Any]:
    """Return a metrics file of a run and benchmark.

    Raises:
        DataError: it is missing, or of another format version.
    """
    return read_result(path, METRICS_VERSION, "scores")


def aggregate(
    metrics_files: Mapping[tuple[str, str], Path],
    *,
    per_question_files: Mapping[tuple[str, str], Path],
    baseline: str,
    out: Path,
    train_summaries: Mapping[str, Path],
    run_configs: Mapping[str, Path],
    trivial: Path | None = None,
    control_files: Mapping[tuple[str, str, str], Path] | None = None,
) -> dict[str, Any]:
    """Write the summaries and return the content of the JSON one.

    Metrics files, files of questions and those of controls are given by (run, benchmark) and
    (run, benchmark, control), ``train.json`` and resolved ``config.json`` by run, and what anyone
    scores without looking in ``trivial``. ``out`` is ``summary.json``: what `_summarise` returns,
    and the hashes of the files read. Beside it come ``.csv``, and the headline metrics as tables in
    ``.tex`` (booktabs) and ``.md``.

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
        results[run][benchmark] = read_metrics(path)
    questions = {
        (run, benchmark): read_per_question(path, TASKS[benchmark])
        for (run, benchmark), path in per_question_files.items()
        if not results[run][benchmark].get("unanswered")
    }
    configs = {run: read_json(path) for run, path in run_configs.items()}
    trained = {run: read_json(path) for run, path in train_summaries.items()}
    summary = _summarise(results, questions, configs, trained, baseline)
    summary["trivial"] = summary_rows(read_trivial_answers(trivial)) if trivial else []
    summary["trivial"] += _control_rows(summary["groups"], control_files or {})
    for group in summary["groups"]:
        group["looking"] = read_looking(group["runs"], control_files or {}, questions)
    sources = {f"{run}/{benchmark}": path for (run, benchmark), path in metrics_files.items()}
    # A control lies in a folder beside its benchmark's.
    asked_again = (control_files or {}).items()
    sources |= {f"{run}/{path.parent.name}": path for (run, *_), path in asked_again}
    sources |= {"trivial_answers": trivial} if trivial else {}
    summary["sources"] = {name: sha256_of_file(path) for name, path in sources.items()}
    # The JSON file comes last: where it is, the tables are there too.
    _write_csv(out.with_suffix(".csv"), summary)
    write_text(out.with_suffix(".tex"), latex_table(summary))
    write_text(out.with_suffix(".md"), markdown_table(summary))
    write_json(out, summary)
    return summary


def _summarise(
    results: Mapping[str, dict[str, Any]],
    questions: Mapping[tuple[str, str], PerQuestion],
    configs: Mapping[str, Any],
    trained: Mapping[str, Any],
    baseline: str,
) -> dict[str, Any]:
    """Return the metrics, settings and training summary of runs, and groups of runs compared.

    Runs that differ in the seed alone form groups with mean, deviation and comparison.
    ``results`` are by run and benchmark, ``configs`` and ``trained`` by run.
    """
    groups = setting_groups(list(results), configs, baseline)
    tests, comparisons = _comparisons(groups, questions)
    return {
        "format_version": FORMAT_VERSION,
        "baseline": baseline,
        "benchmarks": [name for name in TASKS if any(name in r for r in results.values())],
        "comparison": {
            "level": LEVEL,
            "power": POWER,
            "fewest_seeds": FEWEST_SEEDS,
            "tests": tests,
        },
        "runs": {
            run: {
                "benchmarks": results[run],
                "deltas": {} if run == baseline else _deltas(results[run], results[baseline]),
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
                "comparison": comparison,
            }
            for members, comparison in zip(groups, comparisons, strict=True)
        ],
    }


def _group_name(members: list[str]) -> str:
    """Return the shortest name of runs that differ in their seed, and how many they are."""
    name = min(members, key=len)
    return name if len(members) == 1 else f"{name} ({len(members)} seeds)"


def _comparisons(
    groups: list[list[str]], questions: Mapping[tuple[str, str], PerQuestion]
) -> tuple[int, list[dict[str, Any]]]:
    """Return the number of tests, and each group compared with the first, by benchmark and metric.

    ``p_holm`` is p corrected for all headline metrics of all groups that were tested. ``missed`` is
    the true difference that would have been found with power `POWER`, and a smaller one more
    rarely.
    """
    found = {
        (number, benchmark, metric): one
        for number, members in enumerate(groups)
        for benchmark in TASKS
        if number and all((run, benchmark) in questions for run in (*members, *groups[0]))
        for metric, one in compare(
            [questions[run, benchmark] for run in members],
            [questions[run, benchmark] for run in groups[0]],
        ).items()
    }
    # Corrected over the headline metrics alone: the others are there to look at, not to claim.
    headline = {(column.benchmark, column.metric) for column in headline_columns()}
    p_values = {key: one.p for key, one in found.items() if key[1:] in headline}
    tested = {key: p for key, p in p_values.items() if p is not None}
    corrected = holm(tested)
    shown: list[dict[str, Any]] = [{} for _ in groups]
    for key, one in found.items():
        number, benchmark, metric = key
        content = one.to_json()
        if key in p_values:
            content |= {"p_holm": corrected.get(key), "missed": None}
        if key in tested and one.spread is not None:
            content["missed"] = one.spread.missed(LEVEL / len(tested))
        shown[number].setdefault(benchmark, {})[metric] = content
    return len(tested), shown


def _values(result: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: estimate["value"] for name, estimate in result["metrics"].items()}


def _deltas(
    run: Mapping[str, Any], baseline: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Return run minus baseline, in percentage points; null where one of them has no value."""
    deltas: dict[str, dict[str, float | None]] = {}
    for benchmark in [name for name in run if name in baseline]:
        others = _values(baseline[benchmark])
        pairs = {name: (value, others[name]) for name, value in _values(run[benchmark]).items()}
        deltas[benchmark] = {
            name: None if value is None or other is None else value - other
            for name, (value, other) in pairs.items()
        }
    return deltas


def setting_groups(runs: list[str], configs: Mapping[str, Any], baseline: str) -> list[list[str]]:
    """Return the runs in groups that differ in ``train.seed`` only, the baseline's group first.

    Of runs that are equal in everything the first counts as a seed, each other as a group.
    """
    members: dict[str, list[str]] = {}
    known: set[tuple[str, int]] = set()
    for run in runs:
        key = run
        # A checkpoint that is evaluated as it is was not trained here, and has no other seeds.
        if run in configs and "checkpoint" not in configs[run]:
            setting = sha256_of_json(recipe(configs[run]))
            seeded = setting, configs[run]["train"]["seed"]
            # The same run under two names is no second seed.
            key = run if seeded in known else setting
            known.add(seeded)
        members.setdefault(key, []).append(run)
    return sorted(members.values(), key=lambda group: baseline not in group)


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a resolved run shapes its trained weights, the seed aside."""
    shaping = {name: value for name, value in config.items() if name not in RUN_NAMES}
    for section, inert in _INERT.items():
        shaping[section] = {k: v for k, v in shaping.get(section, {}).items() if k not in inert}
    # A rate by which nothing is trained is one of a recipe in name only.
    if "vision_tower" not in shaping["train"].get("tunable", ["vision_tower"]):
        del shaping["train"]["learning_rate_vision_tower"]
    # A loss that counts nothing teaches nothing, whoever the teacher is.
    if shaping.get("supervision", {}).get("weight") == 0:
        del shaping["supervision"], shaping["teacher"]
    return shaping


def _mean_and_deviation(members: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and sample standard deviation of each metric that every member has."""
    # A mean over some of the seeds would stand beside means over all of them.
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


def _control_rows(
    groups: list[dict[str, Any]], files: Mapping[tuple[str, str, str], Path]
) -> list[dict[str, Any]]:
    """Return a row for each setting and control, as `trivial_answers.summary_rows`."""
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for (run, benchmark, control), path in files.items():
        results.setdefault((control, run), {})[benchmark] = read_metrics(path)
    controls = dict.fromkeys(control for control, _ in results)
    return [
        {
            "name": f"{group['name']}, {CONTROLS[control][0]}",
            "how": CONTROLS[control][1],
            "metrics": _mean_and_deviation([results[control, run] for run in group["runs"]]),
        }
        for control in controls
        for group in groups
    ]


def _write_csv(path: Path, summary: Mapping[str, Any]) -> None:
    """Write a row a run, then one a trivial way to answer, its name in parentheses.

    Columns are ``<benchmark>:<metric>``, with ``:low``, ``:high``, and against the baseline
    ``:difference``, empty where there is no value; last ``notes``.
    """
    import pandas as pd

    metrics = [(b, m) for b in summary["benchmarks"] for m in TASKS[b].metrics]
    rows: list[dict[str, Any]] = []
    for run, entry in summary["runs"].items():
        row = {"run": run, "notes": " ".join(run_notes(entry))}
        for b, m in metrics:
            estimate = entry["benchmarks"].get(b, {}).get("metrics", {}).get(m, {})
            row |= {f"{b}:{m}": estimate.get("value")}
            row |= {f"{b}:{m}:{end}": estimate.get(end) for end in ("low", "high")}
            row |= {f"{b}:{m}:difference": entry["deltas"].get(b, {}).get(m)}
        rows.append(row)
    for trivial in summary["trivial"]:
        means = {f"{b}:{m}": mean_of(trivial, b, m) for b, m in metrics}
        rows.append({"run": f"({trivial['name']})", "notes": trivial["how"], **means})
    heads = [f"{b}:{m}{end}" for b, m in metrics for end in ("", ":low", ":high", ":difference")]
    table = pd.DataFrame(rows, columns=["run", *heads, "notes"])
    with atomic_file(path) as temporary:
        # A metric that could not be had is an empty cell, which nobody can take for a zero.
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
