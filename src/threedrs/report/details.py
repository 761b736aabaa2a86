"""The details of each benchmark's scores, in the columns and the order in which papers print them.

ScanRefer's unique and multiple objects, Multi3DRefer's zero, single and multiple targets, SQA3D's
kinds of questions, and the further metrics of captions and answers: a row a setting, and one of
the 3DRS paper, to hold beside the tables of other papers.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threedrs.report.published import MAIN
from threedrs.report.results import Results
from threedrs.report.scores import spread_text
from threedrs.tasks.base import Task
from threedrs.tasks.registry import find_task

ALL = "all"  # what a task's published details call the questions of every type


@dataclass(frozen=True, kw_only=True)
class DetailColumn:
    """A metric of the questions of one type, or of all."""

    kind: str
    metric: str
    of: str  # the type's name in papers; empty where questions have no types
    title: str  # the metric's
    questions: int


@dataclass(frozen=True, kw_only=True)
class DetailCell:
    """A value in percent, None where there is none, and how far it may be off."""

    value: float | None
    spread: str = ""  # interval over rooms of one run, or deviation over seeds


@dataclass(frozen=True, kw_only=True)
class DetailTable:
    """One benchmark: rows are (name, cells), each with a cell a column."""

    benchmark: str
    title: str
    columns: Sequence[DetailColumn]
    settings: Sequence[tuple[str, Sequence[DetailCell]]]
    published: tuple[str, Sequence[DetailCell]] | None


def detail_tables(results: Results) -> list[DetailTable]:
    """Return a table of each benchmark."""
    tables = []
    for name in results.benchmarks:
        task = find_task(name)
        columns = _columns(task, [results.metrics(run, name) for run in results.runs])
        settings = [
            (group["name"], [_cell(results, group["runs"], name, column) for column in columns])
            for group in results.summary["groups"]
        ]
        published = [DetailCell(value=_published(task, column)) for column in columns]
        known = any(cell.value is not None for cell in published)
        tables.append(
            DetailTable(
                benchmark=name,
                title=task.title,
                columns=columns,
                settings=settings,
                published=(MAIN, published) if known else None,
            )
        )
    return tables


def _columns(task: Task, files: Sequence[Mapping[str, Any]]) -> list[DetailColumn]:
    """Return the columns of the types that a run was asked, then those of all questions."""
    titles = {headline.metric: headline.title for headline in task.headline} | {**task.further}
    kinds = []
    for kind, name in task.types.items():
        if counts := [file["by_type"][kind]["n"] for file in files if kind in file["by_type"]]:
            kinds.append((kind, name, max(counts)))
    kinds.append((ALL, "All" if kinds else "", max(file["n"] for file in files)))
    return [
        DetailColumn(kind=kind, metric=metric, of=name, title=title, questions=count)
        for kind, name, count in kinds
        for metric, title in titles.items()
    ]


def _cell(
    results: Results, runs: Sequence[str], benchmark: str, column: DetailColumn
) -> DetailCell:
    """Return what a setting's runs score in a column."""
    found = [_entry(results.metrics(run, benchmark), column) for run in runs]
    values = [entry["value"] for entry in found]
    if None in values:
        return DetailCell(value=None)
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return DetailCell(value=statistics.fmean(values), spread=spread_text(deviation, found[0]))


def _entry(file: Mapping[str, Any], column: DetailColumn) -> Mapping[str, Any]:
    part = file if column.kind == ALL else file["by_type"].get(column.kind)
    return {"value": None} if part is None else part["metrics"][column.metric]


def _published(task: Task, column: DetailColumn) -> float | None:
    """Return what the 3DRS paper prints of its main model in a column, if anything."""
    headlines = [headline.metric for headline in task.headline]
    if column.kind == ALL and column.metric in headlines and MAIN in task.published_scores:
        return task.published_scores[MAIN][headlines.index(column.metric)]
    return task.published_details.get(column.kind, {}).get(column.metric)
