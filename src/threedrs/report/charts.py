"""The report's charts: results in, what the page draws out, each with its numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from threedrs.evaluation.awareness import metric_by_quartile
from threedrs.evaluation.compare import PerQuestion
from threedrs.metrics.bootstrap import scene_sums
from threedrs.report import figures
from threedrs.report.published import BACKBONES, MAIN, METHODS, PUBLISHED
from threedrs.report.question_columns import pack
from threedrs.report.results import Results
from threedrs.report.scores import run_colours
from threedrs.report.verdict import Verdict
from threedrs.tasks.base import Column
from threedrs.tasks.registry import find_task

CURVES = {
    "text": "text loss",
    "grounding": "grounding loss",
    "supervision": "3D supervision loss",
    "samples_per_second": "samples a second",
}
ANSWERS_SHOWN = 8
FEWEST_AXES = 3  # of a radar
MOST_POINTS = 600  # of a curve; a screen shows fewer
QUARTILE_NAMES = ("lowest quarter", "second", "third", "highest quarter")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A field of the training log, of every run that has it."""

    name: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]  # run to its steps and values

    def quarters(self) -> dict[str, list[float]]:
        """Return run -> the mean of each quarter of its points, the last one last."""
        return {
            run: [float(part.mean()) for part in np.array_split(values, min(4, len(values)))]
            for run, (_, values) in self.lines.items()
        }


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """A chart of bars, and its numbers for a table."""

    svg: Markup
    title: str
    groups: tuple[str, ...]
    series: Mapping[str, Sequence[figures.Bar]]
    filters: tuple[Mapping[str, str], ...] = ()  # of the page, that leads to a group's questions
    counts: tuple[int, ...] = ()  # of the questions of a group, where there are filters


def _bar_chart(
    groups: Sequence[str],
    series: Mapping[str, Sequence[figures.Bar]],
    title: str,
    colours: Mapping[str, str] | None = None,
    filters: Sequence[Mapping[str, str]] = (),
    counts: Sequence[int] = (),
) -> BarChart:
    labels = groups
    if counts:
        labels = [f"{group} ({count})" for group, count in zip(groups, counts, strict=True)]
    return BarChart(
        svg=Markup(figures.bars(labels, series, title, colours)),
        title=title,
        groups=tuple(groups),
        series=series,
        filters=tuple(filters),
        counts=tuple(counts),
    )


def differences_of(verdict: Verdict, colours: Mapping[str, str]) -> Markup:
    """Return the chart of a verdict's differences with their intervals."""
    scales: dict[str, list[figures.Difference]] = {}
    for line in verdict.lines:
        row = figures.Difference(
            label=_name(line.column),
            value=line.compared["difference"],
            low=line.compared["low"],
            high=line.compared["high"],
            significant=line.tone != "even",
        )
        scales.setdefault(_scale(line.column), []).append(row)
    intervals = ", with 95 % intervals" if verdict.has_intervals else ""
    title = f"Differences of {verdict.name} to the baseline{intervals}"
    return Markup(figures.differences(scales, colours[verdict.runs[0]], title))


def _scale(column: Column) -> str:
    # A difference in CIDEr is larger than all others, which one axis would press to a point.
    return "points of CIDEr" if column.metric == "cider" else "percentage points"


def room_strips(results: Results, verdict: Verdict) -> Markup | None:
    """Return each room's difference to the baseline's mean over its seeds, in a setting's runs.

    A strip for the first headline metric of each benchmark that both sides answer; None without.
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
            scales.setdefault(_scale(column), {})[_name(column)] = rows
    if not scales:
        return None
    title = f"Differences of {verdict.name} to the baseline, a dot a room and run"
    return Markup(figures.room_strip(scales, run_colours(results.runs), title))


def _by_room(questions: PerQuestion, metric: str) -> np.ndarray:
    """Return a metric of each room by itself, (C,) percent, rooms in the order of their names."""
    chosen = questions.metrics[metric]
    return chosen.combine(scene_sums(chosen.statistics_QS, questions.scenes))


def _first_column(results: Results, benchmark: str) -> Column:
    return next(column for column in results.columns if column.benchmark == benchmark)


def radars(results: Results) -> list[tuple[str, Markup]]:
    """Return caption and radar of each backbone: our runs, then the published ones.

    All radars have the same axes. Each ends at the highest value, published ones included, so that
    a low score stays near the centre however the others do. Fewer than three axes make no radar.
    """
    if len(results.columns) < FEWEST_AXES:
        return []
    rows = {row.method: row.of(results.columns) for row in PUBLISHED}
    ours = {
        run: [_bar(results.metrics(run, c.benchmark), c.metric).value for c in results.columns]
        for run in results.runs
    }
    axes = {
        f"{column.group}\n{column.title}": max(
            (
                value
                for row in (*rows.values(), *ours.values())
                if (value := row[index]) is not None
            ),
            default=100.0,
        )
        or 100.0
        for index, column in enumerate(results.columns)
    }
    drawn: list[tuple[str, dict[str, list[float | None]]]] = []
    backbones = {run: str(results.config(run)["model"]["name"]) for run in results.runs}
    for backbone in dict.fromkeys(backbones.values()):
        runs = [run for run in results.runs if backbones[run] == backbone]
        title = f"{BACKBONES.get(backbone, backbone)}, the runs of this report"
        drawn.append((title, {run: ours[run] for run in runs}))
    for backbone, name in BACKBONES.items():
        methods = [row.method for row in METHODS if row.backbone == backbone]
        title = f"{name}, published, on ScanNet"
        drawn.append((title, {method: rows[method] for method in methods}))
    colours = run_colours(results.runs)
    return [(title, Markup(figures.radar(axes, series, colours, title))) for title, series in drawn]


def question_types(results: Results) -> list[BarChart]:
    """Return bars per question type: the first headline metric of each benchmark with types."""
    drawn = []
    for benchmark in results.benchmarks:
        column = _first_column(results, benchmark)
        by_type = {run: results.metrics(run, benchmark)["by_type"] for run in results.runs}
        kinds = sorted({kind for types in by_type.values() for kind in types})
        # A benchmark without types of questions has no such chart.
        if kinds:
            counts = {kind: types[kind]["n"] for types in by_type.values() for kind in types}
            series = {
                run: [_bar(types.get(kind), column.metric) for kind in kinds]
                for run, types in by_type.items()
            }
            details = find_task(benchmark).published_details
            if any(kind in details for kind in kinds):
                series[f"{MAIN}, published"] = [
                    figures.Bar(value=details.get(kind, {}).get(column.metric)) for kind in kinds
                ]
            colours = run_colours(results.runs)
            filters = [{"benchmark": benchmark, "type": kind} for kind in kinds]
            numbers = [counts[kind] for kind in kinds]
            drawn.append(_bar_chart(kinds, series, _name(column), colours, filters, numbers))
    return drawn


def awareness_quartiles(results: Results) -> list[BarChart]:
    """Return bars per quartile of awareness: the first headline metric of each benchmark."""
    measured = {
        run: {scene: row["all_pairs"] for scene, row in found["scenes"].items()}
        for run, found in results.awareness().items()
    }
    drawn = []
    for benchmark in results.benchmarks if measured else ():
        column = _first_column(results, benchmark)
        series = {}
        for run, scores in measured.items():
            questions = results.per_question(run, benchmark)
            if column.metric in questions.metrics:
                values = metric_by_quartile(questions, column.metric, scores)
                series[run] = [figures.Bar(value=value) for value in values]
        if series:
            colours = run_colours(results.runs)
            drawn.append(_bar_chart(QUARTILE_NAMES, series, _name(column), colours))
    return drawn


def training_curves(results: Results) -> list[Curve]:
    """Return the curves of losses, throughput and scores on the way that any run has."""
    histories = {
        run: [_with_scores(row) for row in rows] for run, rows in results.histories().items()
    }
    fields = CURVES | {
        _score_field(column.benchmark, column.metric): f"{_name(column)}, on the way"
        for column in results.columns
    }
    curves = []
    for field, name in fields.items():
        lines = {}
        for run, rows in histories.items():
            points = [(row["step"], row[field]) for row in rows if row.get(field) is not None]
            # A run without a teacher has no supervision loss: its flat zero is not drawn.
            if any(value for _, value in points):
                lines[run] = _thinned(*map(np.array, zip(*points, strict=True)))
        if lines:
            curves.append(Curve(name=name, lines=lines))
    return curves


def packed_curves(curves: Sequence[Curve], runs: Sequence[str]) -> str:
    """Return the curves as the page has them: base64 of gzipped JSON."""
    content = {
        "runs": list(runs),
        "colours": list(run_colours(runs).values()),
        "curves": [
            {
                "name": curve.name,
                "lines": [
                    {"run": runs.index(run), "steps": steps.tolist(), "values": values.tolist()}
                    for run, (steps, values) in curve.lines.items()
                ],
            }
            for curve in curves
        ],
    }
    return pack(content)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `MOST_POINTS` points, each the mean of its neighbours, to four digits."""
    parts = np.array_split(np.arange(len(steps)), min(len(steps), MOST_POINTS))
    means = np.array([values[part].mean() for part in parts])
    return np.array([steps[part[-1]] for part in parts]), np.array(
        [float(f"{v:.4g}") for v in means]
    )


def _score_field(benchmark: str, metric: str) -> str:
    return f"eval:{benchmark}:{metric}"


def _with_scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a training log with the scores of an evaluation on the way as fields."""
    scores = {
        _score_field(benchmark, metric): value
        for benchmark, metrics in row.get("eval", {}).items()
        for metric, value in metrics.items()
    }
    return {**row, **scores}


def mixes(results: Results) -> list[tuple[str, dict[str, Any], list[BarChart]]]:
    """Return name, summary and charts of each training mix."""
    drawn = []
    for name, summary in results.mixes().items():
        counts, before = summary["benchmarks"], summary["before"]["benchmarks"]
        balance = {name: _plain(counts.get(benchmark, 0) for benchmark in before)}
        # A mix of everything would only show the same bars twice.
        if counts != before:
            balance = {"all records": _plain(before.values()), **balance}
        charts = [_bar_chart(list(before), balance, "samples a benchmark")]
        for benchmark, answers in summary["top_answers"].items():
            # Grounding answers are all alike; only spoken ones can be out of balance.
            frequent = [row for row in answers[:ANSWERS_SHOWN] if row["samples"] > 1]
            if len(answers) > 1 and frequent:
                series = {name: _plain(row["samples"] for row in frequent)}
                labels = [_short(row["answer"]) for row in frequent]
                charts.append(_bar_chart(labels, series, f"{benchmark}: most frequent answers"))
        drawn.append((name, summary, charts))
    return drawn


def _name(column: Column) -> str:
    return f"{column.group} {column.title}"


def _short(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _plain(values: Iterable[float]) -> list[figures.Bar]:
    return [figures.Bar(value=value) for value in values]


def _bar(group: Mapping[str, Any] | None, metric: str) -> figures.Bar:
    """Return a metric in a metrics file or one of its types as a bar, without a value if none."""
    if group is None:
        return figures.Bar(value=None)
    entry = group["metrics"][metric]
    return figures.Bar(value=entry["value"], low=entry.get("low"), high=entry.get("high"))
