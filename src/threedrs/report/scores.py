"""The first table of the page: a row a setting, a cell a headline metric.

A setting's value is the mean over its seeds. Rows of answers that need no look at the scans follow
in grey. They take part neither in the heat nor in the mark of the best value. Only a column in
which a difference to the baseline is shown has either: elsewhere a seed may have made the order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threedrs.evaluation.tables import best_values, setting_cell
from threedrs.evaluation.trivial_answers import mean_of
from threedrs.report.results import Results
from threedrs.tasks.base import Column
from threedrs.visualization.box_overlay import RUN_COLOURS
from threedrs.visualization.templates import anchor


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """One value, percent; ``value`` is None where there is none, and ``spread`` says why."""

    value: float | None
    origin: str  # id of the part of the page that the value comes from
    spread: str = ""  # interval over rooms of one run, or deviation over seeds
    # 0 the lowest of the settings, 1 the highest; None where nothing is shown.
    heat: float | None = None
    best: bool = False
    shown: bool = False  # whether the difference to the baseline is more than chance


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One setting, or one way to answer without looking."""

    name: str
    cells: tuple[ScoreCell, ...]
    colours: tuple[str, ...] = ()  # of its runs
    seeds: int = 0
    mark: str = ""
    how: str = ""  # of a trivial row: how its answers were made


def run_colours(runs: Sequence[str]) -> dict[str, str]:
    """Return run -> its colour in every table, chart and image of the page."""
    return {run: RUN_COLOURS[index % len(RUN_COLOURS)] for index, run in enumerate(runs)}


def score_rows(results: Results) -> tuple[list[ScoreRow], list[ScoreRow]]:
    """Return the rows of the settings, and those of answers without looking."""
    summary, columns = results.summary, results.columns
    colours = run_colours(results.runs)
    groups = summary["groups"]
    means = {
        column: [mean_of(group, column.benchmark, column.metric) for group in groups]
        for column in columns
    }
    best = best_values(summary, columns)
    settings = [
        ScoreRow(
            name=group["name"],
            colours=tuple(colours[run] for run in group["runs"]),
            seeds=len(group["runs"]),
            mark=results.mark(group["runs"]),
            cells=tuple(_setting_cell(results, group, c, means[c], best[c]) for c in columns),
        )
        for group in groups
    ]
    trivial = [
        ScoreRow(
            name=row["name"],
            how=row["how"],
            cells=tuple(
                ScoreCell(value=mean_of(row, c.benchmark, c.metric), origin="grey-rows")
                for c in columns
            ),
        )
        for row in summary["trivial"]
    ]
    return settings, trivial


def spread_text(deviation: float | None, entry: Mapping[str, Any]) -> str:
    """Return the deviation over seeds, or of a single run's ``entry`` the interval over rooms."""
    if deviation is not None:
        return f"± {deviation:.1f}"
    low, high = entry.get("low"), entry.get("high")
    return "" if low is None else f"{low:.1f}–{high:.1f}"


def origin_of(setting: Mapping[str, Any], benchmark: str) -> str:
    """Return the id of the part of the page that a setting's scores on a benchmark come from."""
    runs = setting["runs"]
    return anchor(runs[0], benchmark) if len(runs) == 1 else anchor("mean", setting["name"])


def _setting_cell(
    results: Results,
    group: Mapping[str, Any],
    column: Column,
    means: Sequence[float | None],
    best: float | None,
) -> ScoreCell:
    value, deviation, mark = setting_cell(results.summary, group, column)
    runs = group["runs"]
    single = results.metrics(runs[0], column.benchmark)
    origin = origin_of(group, column.benchmark)
    if value is None:
        reason = "not answered" if single.get("unanswered") else "not available"
        return ScoreCell(value=None, spread=reason, origin=origin)
    known = [mean for mean in means if mean is not None]
    low, high = min(known), max(known)
    return ScoreCell(
        value=value,
        spread=spread_text(deviation, single["metrics"][column.metric]),
        heat=(value - low) / (high - low) if best is not None and high > low else None,
        best=round(value, 1) == best,
        shown=bool(mark),
        origin=origin,
    )
