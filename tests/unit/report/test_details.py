"""The tables of details: columns as papers print them, by type, over seeds, beside the paper."""

import json
from pathlib import Path
from typing import Any

import pytest

from threedrs.evaluation.aggregate import FORMAT_VERSION
from threedrs.report.details import DetailTable, detail_tables
from threedrs.report.results import Results
from threedrs.tasks.registry import TASKS


def scored(
    of: dict[str, tuple[int, list[float]]], metrics: list[str], low: float
) -> dict[str, Any]:
    """Return a metrics file: type, or "all", to its number of questions and its values."""

    def part(kind: str) -> dict[str, Any]:
        count, values = of[kind]
        rows = zip(metrics, values, strict=True)
        return {
            "n": count,
            "metrics": {
                name: {"value": value, "low": value - low, "high": value + low}
                for name, value in rows
            },
        }

    return {**part("all"), "by_type": {kind: part(kind) for kind in of if kind != "all"}}


def tables(tmp_path: Path, benchmark: str, *settings: dict[str, Any]) -> DetailTable:
    """Return the table of settings, each of runs with their metrics files."""
    runs = {run: {"benchmarks": {benchmark: m}} for s in settings for run, m in s.items()}
    groups = [{"name": next(iter(setting)), "runs": [*setting]} for setting in settings]
    (tmp_path / "report").mkdir()
    content = {"format_version": FORMAT_VERSION, "runs": runs, "groups": groups}
    (tmp_path / "report" / "summary.json").write_text(json.dumps(content))
    (table,) = detail_tables(
        Results(folder=tmp_path, runs=(*runs,), benchmarks=(benchmark,), mix_names=())
    )
    return table


def titles_of(table: DetailTable) -> list[str]:
    return [f"{column.of} {column.title}".lstrip() for column in table.columns]


def test_scanrefer_has_unique_multiple_and_all_at_both_thresholds(tmp_path: Path) -> None:
    metrics = ["acc@0.25", "acc@0.5"]
    # In the file the types stand by name.
    types = {"all": (9, [40.0, 20.0]), "multiple": (6, [30.0, 10.0]), "unique": (3, [60.0, 40.0])}
    table = tables(tmp_path, "scanrefer", {"a": scored(types, metrics, 5.0)})
    assert titles_of(table) == [
        *("Unique Acc@0.25", "Unique Acc@0.5", "Multiple Acc@0.25", "Multiple Acc@0.5"),
        *("All Acc@0.25", "All Acc@0.5"),
    ]
    assert [column.questions for column in table.columns] == [3, 3, 6, 6, 9, 9]
    ((name, cells),) = table.settings
    assert (name, [cell.value for cell in cells]) == ("a", [60.0, 40.0, 30.0, 10.0, 40.0, 20.0])
    assert cells[0].spread == "55.0–65.0"
    assert table.published is not None
    assert [cell.value for cell in table.published[1]] == [87.4, 77.9, 57.0, 50.8, 62.9, 56.1]


def test_seeds_become_mean_and_deviation(tmp_path: Path) -> None:
    files = [
        scored({"all": (9, [first]), "is": (4, [first + 4]), "what": (5, [1.0])}, ["em"], 5.0)
        for first in (10.0, 12.0, 20.0)
    ]
    table = tables(tmp_path, "sqa3d", dict(zip("abc", files, strict=True)), {"d": files[2]})
    assert titles_of(table) == ["What EM", "Is EM", "All EM"]
    (_, several), (_, one) = table.settings
    assert [(cell.value, cell.spread) for cell in several] == [
        (1.0, "± 0.0"),
        (18.0, "± 5.3"),  # the root of (16 + 4 + 36) / 2
        (14.0, "± 5.3"),
    ]
    assert [cell.value for cell in one] == [1.0, 24.0, 20.0]


def test_a_run_that_does_not_answer_has_no_values(tmp_path: Path) -> None:
    whole = scored({"all": (2, [50.0]), "is": (2, [50.0])}, ["em"], 1.0)
    silent = {"n": 0, "by_type": {}, "metrics": {"em": {"value": None, "unavailable": "no head"}}}
    table = tables(tmp_path, "sqa3d", {"a": whole}, {"b": silent})
    assert [column.questions for column in table.columns] == [2, 2]
    assert [cell.value for cell in table.settings[1][1]] == [None, None]


def test_captions_and_answers_have_all_that_papers_print(tmp_path: Path) -> None:
    metrics = [*TASKS["scanqa"].metrics]
    values = [float(number) for number in range(len(metrics))]
    table = tables(tmp_path, "scanqa", {"a": scored({"all": (7, values)}, metrics, 1.0)})
    titles = ["C", "EM", "B-1", "B-2", "B-3", "B-4", "M", "R"]
    assert titles_of(table) == titles
    by_title = dict(zip(titles, table.settings[0][1], strict=True))
    assert by_title["M"].value == float(metrics.index("meteor"))
    assert table.published is not None
    published = [104.8, 30.3, 48.37, 32.67, 23.79, 17.22, 20.47, 49.82]
    assert [cell.value for cell in table.published[1]] == published


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_is_published_has_a_column(task: Any) -> None:
    assert {*task.published_details} <= {*task.types, "all"}
    assert {*task.published_details.get("all", {})} == {*task.further}
    assert task.ordered_types(["x", *reversed(task.types), "a"]) == [*task.types, "a", "x"]
