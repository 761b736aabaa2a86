"""The report's charts: results in, what the page draws out, each with its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np

from threedrs.evaluation.awareness import metric_by_quartile
from threedrs.evaluation.compare import PerQuestion
from threedrs.metrics.bootstrap import scene_sums
from threedrs.report import figures
from threedrs.report.published import BACKBONES, METHODS, PUBLISHED
from threedrs.report.results import Results
from threedrs.report.scores import run_colours
from threedrs.report.verdict import Verdict
from threedrs.tasks.base import Column

ANSWERS_SHOWN = 8
ANSWER_WIDTH = 24  # letters
FEWEST_AXES = 3  # of a radar
QUARTILE_NAMES = ("lowest quarter", "second", "third", "highest quarter")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar and its value, None where there is none."""

    name: str
    value: float | None
    colour: str = figures.GREYS[0]
    run: str | None = None  # what the legend highlights


@dataclass(frozen=True, kw_only=True)
class BarGroup:
    """Bars under one heading."""

    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """A chart of bars, which the page draws into a table of their numbers."""

    title: str
    of: str  # what has a bar
    groups: Sequence[BarGroup]

    @property
    def end(self) -> float:
        """The value at which a bar has its full length."""
        bars = (bar for group in self.groups for bar in group.bars)
        return max((bar.value or 0.0 for bar in bars), default=0.0) or 1.0


def reaches_of(verdict: Verdict) -> list[list[float]]:
    """Return of each line low end, value and high end of its difference; of a scale the largest 1.

    Without an interval both ends are the value.
    """
    spans_L3 = np.array(
        [[line.compared[key] for key in ("low", "difference", "high")] for line in verdict.lines],
        dtype=float,
    ).reshape(-1, 3)
    spans_L3 = np.where(np.isnan(spans_L3), spans_L3[:, 1:2], spans_L3)
    scales_L = np.array([_scale(line.column) for line in verdict.lines])
    for scale in set(scales_L):
        spans_L3[scales_L == scale] /= np.abs(spans_L3[scales_L == scale]).max() or 1.0
    return spans_L3.tolist()


def _scale(column: Column) -> str:
    # A difference in CIDEr is larger than all others, which one axis would press to a point.
    return "points of CIDEr" if column.metric == "cider" else "percentage points"


@dataclass(frozen=True, kw_only=True)
class RoomStrips:
    """Of metrics of one scale, each room's difference to the baseline's mean over its seeds."""

    scale: str
    end: float  # points, where the strips end on either side
    images: Mapping[str, str]  # metric to a strip, a data URI


def room_strips(results: Results, verdict: Verdict) -> list[RoomStrips]:
    """Return the strips of a setting's runs, of the first headline metric of each benchmark.

    A benchmark that a side does not answer has none.
    """
    base = results.summary["groups"][0]["runs"]
    scales: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for benchmark in results.benchmarks:
        column = _first_column(results, benchmark)
        sides = {run: results.per_question(run, benchmark) for run in (*verdict.runs, *base)}
        if all(column.metric in side.metrics for side in sides.values()):
            values = {run: _by_room(side, column.metric) for run, side in sides.items()}
            mean = np.mean([values[run] for run in base], axis=0)
            rows = {run: values[run] - mean for run in verdict.runs}
            scales.setdefault(_scale(column), {})[column.full_title] = rows
    strips, colours = [], run_colours(results.runs)
    for scale, metrics in scales.items():
        end = max(float(np.abs(v).max()) for runs in metrics.values() for v in runs.values()) or 1.0
        images = {name: figures.room_strip(runs, end, colours) for name, runs in metrics.items()}
        strips.append(RoomStrips(scale=scale, end=end, images=images))
    return strips


def _by_room(questions: PerQuestion, metric: str) -> np.ndarray:
    """Return a metric of each room by itself, (C,) percent, rooms in the order of their names."""
    chosen = questions.metrics[metric]
    return chosen.combine(scene_sums(chosen.statistics_QS, questions.scenes))


def _first_column(results: Results, benchmark: str) -> Column:
    return next(column for column in results.columns if column.benchmark == benchmark)


def radars(results: Results) -> list[figures.Radar]:
    """Return a radar of each backbone: our runs, then the published ones.

    All radars have the same axes. Each ends at the highest value, published ones included, so that
    a low score stays near the centre however the others do. Fewer than three axes make no radar.
    """
    columns = results.columns
    if len(columns) < FEWEST_AXES:
        return []
    rows = {row.method: row.of(columns) for row in PUBLISHED}
    ours = {
        run: [results.metrics(run, c.benchmark)["metrics"][c.metric]["value"] for c in columns]
        for run in results.runs
    }
    highest = np.nanmax(np.array([*rows.values(), *ours.values()], dtype=float), axis=0)
    axes = {
        column.full_title: end if end > 0 else 100.0
        for column, end in zip(columns, highest.tolist(), strict=True)
    }
    drawn: dict[str, dict[str, list[float | None]]] = {}
    for run in results.runs:
        backbone = str(results.config(run)["model"]["name"])
        title = f"{BACKBONES.get(backbone, backbone)}, the runs of this report"
        drawn.setdefault(title, {})[run] = ours[run]
    for backbone, name in BACKBONES.items():
        methods = [row.method for row in METHODS if row.backbone == backbone]
        drawn[f"{name}, published, on ScanNet"] = {method: rows[method] for method in methods}
    colours = run_colours(results.runs)
    return [figures.radar(axes, series, colours, title) for title, series in drawn.items()]


def awareness_quartiles(results: Results) -> list[BarChart]:
    """Return bars per quartile of awareness: the first headline metric of each benchmark."""
    colours = run_colours(results.runs)
    bars: dict[str, list[list[Bar]]] = {}
    for run, found in results.awareness().items():
        scores = {scene: row["all_pairs"] for scene, row in found["scenes"].items()}
        for benchmark in results.benchmarks:
            column = _first_column(results, benchmark)
            questions = results.per_question(run, benchmark)
            if column.metric in questions.metrics:
                values = metric_by_quartile(questions, column.metric, scores)
                mine = [Bar(name=run, colour=colours[run], run=run, value=v) for v in values]
                bars.setdefault(column.full_title, []).append(mine)
    return [
        BarChart(
            title=title,
            of="Run",
            groups=[
                BarGroup(name=name, bars=quarter)
                for name, quarter in zip(QUARTILE_NAMES, zip(*runs, strict=True), strict=True)
            ],
        )
        for title, runs in bars.items()
    ]


def mixes(results: Results) -> list[tuple[str, dict[str, Any], list[BarChart]]]:
    """Return name, summary and charts of each training mix."""
    drawn = []
    for name, summary in results.mixes().items():
        counts, before = summary["benchmarks"], summary["before"]["benchmarks"]
        groups = [
            BarGroup(
                name=benchmark,
                bars=[
                    Bar(name="all records", value=of),
                    Bar(name=name, value=counts.get(benchmark, 0)),
                ],
            )
            for benchmark, of in before.items()
        ]
        # A mix of everything would only show the same bars twice.
        if counts == before:
            everything = [Bar(name=benchmark, value=of) for benchmark, of in before.items()]
            groups = [BarGroup(name="", bars=everything)]
        charts = [BarChart(title="Samples a benchmark", of="Benchmark", groups=groups)]
        for benchmark, answers in summary["top_answers"].items():
            # Grounding answers are all alike; only spoken ones can be out of balance.
            bars = [
                Bar(name=shorten(row["answer"], ANSWER_WIDTH), value=row["samples"])
                for row in answers[:ANSWERS_SHOWN]
                if row["samples"] > 1
            ]
            if len(answers) > 1 and bars:
                title = f"{benchmark}: most frequent answers"
                charts.append(
                    BarChart(title=title, of="Answer", groups=[BarGroup(name="", bars=bars)])
                )
        drawn.append((name, summary, charts))
    return drawn
