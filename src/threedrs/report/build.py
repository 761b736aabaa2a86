"""Builds the report page from the files that the other stages left.

It computes no score: every number comes from a metrics file, and is shown with its provenance.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from threedrs import __version__
from threedrs.evaluation.predictions import read_predictions
from threedrs.evaluation.registry import benchmark_named
from threedrs.files import read_json, read_json_lines, write_text
from threedrs.instructions import EVALUATION_SPLITS
from threedrs.instructions.record import read_records
from threedrs.report import figures
from threedrs.report.examples import Example, choose, make_example
from threedrs.report.published import COLUMNS, PUBLISHED


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What the page shows: ``examples`` sampled questions a benchmark, deltas to ``baseline``."""

    title: str
    baseline: str
    examples: int
    runs: tuple[str, ...]
    benchmarks: tuple[str, ...]


def build_report(results: Path, settings: ReportSettings) -> None:
    """Write ``results/report/index.html``, one self-contained page.

    Raises:
        DataError: a file of an earlier stage is missing or malformed.
    """
    metrics = {
        (run, benchmark): read_json(results / "eval" / run / benchmark / "metrics.json")
        for run in settings.runs
        for benchmark in settings.benchmarks
    }
    trained = {run: read_json(results / "train" / run / "train.json") for run in settings.runs}
    histories = {
        run: list(read_json_lines(results / "train" / run / "log.jsonl")) for run in settings.runs
    }
    columns = [column for column in COLUMNS if column.benchmark in settings.benchmarks]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("threedrs.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("index.html.j2").render(
        settings=settings,
        version=__version__,
        columns=columns,
        rows=_table(settings, metrics),
        verdict=_verdict(settings, metrics),
        published=[
            (
                row.method,
                [
                    value
                    for column, value in zip(COLUMNS, row.values, strict=True)
                    if column in columns
                ],
            )
            for row in PUBLISHED
        ],
        radar=Markup(_radar(settings, metrics)),
        losses=Markup(figures.loss_curves(histories, "Training losses of every run")),
        types=[Markup(chart) for chart in _type_charts(settings, metrics)],
        mixes=_mixes(results),
        stages=_stage_times(results),
        examples=_examples(results, settings),
        trained=trained,
        provenance=[(run, benchmark, value) for (run, benchmark), value in metrics.items()],
    )
    write_text(results / "report" / "index.html", page)


def _value(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    entry = metrics["metrics"].get(name)
    return entry if entry is not None and entry.get("value") is not None else None


def _table(
    settings: ReportSettings, metrics: Mapping[tuple[str, str], Any]
) -> list[dict[str, Any]]:
    """Rows of our runs: per column value, interval, and difference to the baseline."""
    rows = []
    for run in settings.runs:
        cells = []
        for column in COLUMNS:
            if column.benchmark not in settings.benchmarks:
                continue
            entry = _value(metrics[run, column.benchmark], column.metric)
            base = _value(metrics[settings.baseline, column.benchmark], column.metric)
            delta = None
            if entry and base and run != settings.baseline:
                delta = entry["value"] - base["value"]
            cells.append({"entry": entry, "delta": delta})
        rows.append({"run": run, "cells": cells})
    return rows


def _verdict(settings: ReportSettings, metrics: Mapping[tuple[str, str], Any]) -> list[str]:
    """One sentence a run: on how many headline metrics it is above the baseline."""
    sentences = []
    for row in _table(settings, metrics):
        deltas = [cell["delta"] for cell in row["cells"] if cell["delta"] is not None]
        if deltas:
            better = sum(delta > 0 for delta in deltas)
            worse = sum(delta < 0 for delta in deltas)
            sentences.append(
                f"{row['run']} against {settings.baseline}: higher on {better}, lower on {worse} "
                f"of {len(deltas)} headline metrics."
            )
    return sentences


def _radar(settings: ReportSettings, metrics: Mapping[tuple[str, str], Any]) -> str:
    columns = [column for column in COLUMNS if column.benchmark in settings.benchmarks]
    series = {
        run: [
            (_value(metrics[run, column.benchmark], column.metric) or {}).get("value")
            for column in columns
        ]
        for run in settings.runs
    }
    return figures.radar([column.title for column in columns], series, "Scores of every run")


def _type_charts(settings: ReportSettings, metrics: Mapping[tuple[str, str], Any]) -> list[str]:
    """Bars per question type, for the first headline metric of each benchmark that has types."""
    charts = []
    for benchmark in settings.benchmarks:
        metric = next(column.metric for column in COLUMNS if column.benchmark == benchmark)
        kinds = sorted(
            {kind for run in settings.runs for kind in metrics[run, benchmark]["by_type"]}
        )
        if not kinds:
            continue
        series = {
            run: [
                (
                    metrics[run, benchmark]["by_type"].get(kind, {}).get("metrics", {}).get(metric)
                    or {}
                ).get("value")
                for kind in kinds
            ]
            for run in settings.runs
        }
        charts.append(figures.bars(kinds, series, f"{benchmark}: {metric} by question type"))
    return charts


def _mixes(results: Path) -> list[tuple[str, Any, Markup]]:
    """Name, summary and picture of every training mix."""
    mixes = []
    for path in sorted((results / "instructions" / "mixes").glob("*.summary.json")):
        summary = read_json(path)
        name = path.name.removesuffix(".summary.json")
        counts = summary["benchmarks"]
        chart = figures.bars(list(counts), {name: list(counts.values())}, f"mix {name}: samples")
        mixes.append((name, summary, Markup(chart)))
    return mixes


def _stage_times(results: Path) -> list[dict[str, Any]]:
    """Jobs, total seconds and peak memory of each stage, from Snakemake's benchmark files."""
    stages: dict[str, dict[str, Any]] = {}
    folder = results / "benchmarks"
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder).parts[0].removesuffix(".tsv")
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        stage = stages.setdefault(name, {"stage": name, "jobs": 0, "seconds": 0.0, "memory": 0.0})
        for row in rows:
            stage["jobs"] += 1
            stage["seconds"] += float(row["s"])
            memory = row.get("max_rss", "-")
            stage["memory"] = max(stage["memory"], 0.0 if memory in ("-", "NA") else float(memory))
    return list(stages.values())


def _examples(results: Path, settings: ReportSettings) -> list[tuple[str, list[Example]]]:
    groups = []
    for benchmark in settings.benchmarks:
        split = EVALUATION_SPLITS[benchmark]
        records = list(read_records(results / "instructions" / f"{benchmark}_{split}.jsonl"))
        predictions = {
            run: {
                row.id: row
                for row in read_predictions(
                    results / "eval" / run / benchmark / "predictions.jsonl",
                    benchmark_named(benchmark),
                )
            }
            for run in settings.runs
        }
        chosen = [records[row] for row in choose(len(records), settings.examples)]
        groups.append(
            (
                benchmark,
                [
                    make_example(
                        record,
                        {run: rows[record.id] for run, rows in predictions.items()},
                        results / "scenes",
                    )
                    for record in chosen
                ],
            )
        )
    return groups
