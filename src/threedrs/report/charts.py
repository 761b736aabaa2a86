"""The report's charts: results in, SVG for the page out."""

from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from threedrs.evaluation.awareness import metric_by_quartile
from threedrs.report import figures
from threedrs.report.published import BACKBONES, MAIN, METHODS
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
QUARTILE_NAMES = ("lowest quarter", "second", "third", "highest quarter")


def differences_of(verdict: Verdict, colours: Mapping[str, str]) -> Markup:
    """Return the chart of a verdict's differences with their intervals."""
    rows = [
        figures.Difference(
            label=_name(line.column),
            value=line.compared["difference"],
            low=line.compared["low"],
            high=line.compared["high"],
            significant=line.tone != "even",
        )
        for line in verdict.lines
    ]
    intervals = ", with 95 % intervals" if verdict.has_intervals else ""
    title = f"Differences of {verdict.name} to the baseline{intervals}"
    return Markup(figures.differences(rows, colours[verdict.runs[0]], title))


def radars(results: Results) -> list[tuple[str, Markup]]:
    """Return caption and radar of each backbone: our runs, then the published ones.

    All radars have the same axes. Each ends at the highest value, published ones included, so that
    a low score stays near the centre however the others do. Fewer than three axes make no radar.
    """
    if len(results.columns) < FEWEST_AXES:
        return []
    rows = {row.method: row.of(results.columns) for row in METHODS}
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


def question_types(results: Results) -> list[Markup]:
    """Return bars per question type: the first headline metric of each benchmark with types."""
    drawn = []
    for benchmark in results.benchmarks:
        column = next(column for column in results.columns if column.benchmark == benchmark)
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
            labels = [f"{kind} ({counts[kind]})" for kind in kinds]
            colours = run_colours(results.runs)
            drawn.append(Markup(figures.bars(labels, series, _name(column), colours)))
    return drawn


def awareness_quartiles(results: Results) -> list[Markup]:
    """Return bars per quartile of awareness: the first headline metric of each benchmark."""
    measured = {
        run: {scene: row["all_pairs"] for scene, row in found["scenes"].items()}
        for run, found in results.awareness().items()
    }
    drawn = []
    for benchmark in results.benchmarks if measured else ():
        column = next(column for column in results.columns if column.benchmark == benchmark)
        series = {}
        for run, scores in measured.items():
            questions = results.per_question(run, benchmark)
            if column.metric in questions.metrics:
                values = metric_by_quartile(questions, column.metric, scores)
                series[run] = [figures.Bar(value=value) for value in values]
        if series:
            colours = run_colours(results.runs)
            chart = figures.bars(list(QUARTILE_NAMES), series, _name(column), colours)
            drawn.append(Markup(chart))
    return drawn


def training_curves(results: Results) -> list[Markup]:
    """Return the curves of losses, throughput and scores on the way that any run has."""
    histories = {
        run: [_with_scores(row) for row in rows] for run, rows in results.histories().items()
    }
    fields = CURVES | {
        _score_field(column.benchmark, column.metric): f"{_name(column)}, on the way"
        for column in results.columns
    }
    colours = run_colours(results.runs)
    drawn = [figures.curves(histories, field, name, colours) for field, name in fields.items()]
    return [Markup(chart) for chart in drawn if chart is not None]


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


def mixes(results: Results) -> list[tuple[str, dict[str, Any], list[Markup]]]:
    """Return name, summary and charts of each training mix."""
    drawn = []
    for name, summary in results.mixes().items():
        counts, before = summary["benchmarks"], summary["before"]["benchmarks"]
        balance = {name: _plain(counts.get(benchmark, 0) for benchmark in before)}
        # A mix of everything would only show the same bars twice.
        if counts != before:
            balance = {"all records": _plain(before.values()), **balance}
        charts = [figures.bars(list(before), balance, "samples a benchmark")]
        for benchmark, answers in summary["top_answers"].items():
            # Grounding answers are all alike; only spoken ones can be out of balance.
            frequent = [row for row in answers[:ANSWERS_SHOWN] if row["samples"] > 1]
            if len(answers) > 1 and frequent:
                series = {name: _plain(row["samples"] for row in frequent)}
                labels = [_short(row["answer"]) for row in frequent]
                charts.append(figures.bars(labels, series, f"{benchmark}: most frequent answers"))
        drawn.append((name, summary, [Markup(chart) for chart in charts]))
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
