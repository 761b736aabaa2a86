"""A metrics file as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from threedrs.evaluation.paper_tables import questions_left_out
from threedrs.evaluation.registry import benchmark_named


def metrics_table(result: Mapping[str, Any]) -> Table:
    """Return the table of a metrics file: a row a metric, a column a question type."""
    title = benchmark_named(result["benchmark"]).title
    table = Table(title=f"{title}, run {result['run']}, percent")
    table.add_column("metric", no_wrap=True)
    table.add_column("all", justify="right", no_wrap=True)
    table.add_column("95 %", no_wrap=True)
    for name in result["by_type"]:
        table.add_column(name, justify="right", no_wrap=True)
    for metric, estimate in result["metrics"].items():
        groups = (group["metrics"][metric] for group in result["by_type"].values())
        table.add_row(metric, _value(estimate), _interval(estimate), *map(_value, groups))
    table.add_section()
    counts = (str(group["n"]) for group in result["by_type"].values())
    table.add_row("questions", str(result["n"]), "", *counts)
    return table


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know: missing metrics, questions left out, rows without a scene."""
    lines = [
        f"{metric} is unavailable: {estimate['unavailable']}"
        for metric, estimate in result["metrics"].items()
        if "unavailable" in estimate
    ]
    questions = questions_left_out(result)
    if questions:
        lines.append(
            f"{questions} further questions are left out: the scans of their scenes cannot be used"
        )
    loose = result["provenance"]["rows_without_scene"]
    if loose:
        lines.append(
            f"{loose} of {result['n']} rows name no scene: each is a cluster of its own in the "
            "intervals, which are too narrow for that"
        )
    elif result["provenance"]["scenes"] == 1:
        lines.append("all questions are of one scene: intervals over scenes show no spread")
    return lines


def _value(estimate: Mapping[str, Any]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.1f}"


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return ""
    return f"{estimate['low']:.1f} to {estimate['high']:.1f}"
