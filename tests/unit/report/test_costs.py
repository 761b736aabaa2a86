"""What the stages cost, from the benchmark files that Snakemake writes."""

from pathlib import Path

import pytest

from fixtures.html_tags import results as results  # a fixture
from fixtures.report_files import SETTINGS
from threedrs.errors import DataError
from threedrs.io.files import read_json, write_json
from threedrs.report.costs import run_costs, stage_costs
from threedrs.report.results import Results


def test_jobs_of_a_stage_add_up(tmp_path: Path) -> None:
    for name, text in {
        "boxes/train-000.tsv": "s\th:m:s\tmax_rss\tcpu_time\n1.5\t0:00:01\t89.0\t0.9\n",
        "boxes/val-000.tsv": "s\th:m:s\tmax_rss\tcpu_time\n2.5\t0:00:02\t80.0\t0.6\n",
        "aggregate.tsv": "s\tmax_rss\tcpu_time\tthreads\tresources\n0.2\tNA\t-\t1\t{}\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert stage_costs(tmp_path) == [
        {
            **{"stage": "boxes", "jobs": 2, "seconds": 4.0, "longest": 2.5},
            **{"cpu_seconds": 1.5, "memory": 89.0},
        },
        {
            **{"stage": "aggregate", "jobs": 1, "seconds": 0.2, "longest": 0.2},
            **{"cpu_seconds": 0.0, "memory": 0.0},
        },
    ]


@pytest.mark.parametrize("text", ["a\tb\n1\t2\n", "s\tmax_rss\nsoon\t3\n"])
def test_what_is_not_a_benchmark_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "boxes.tsv").write_text(text)
    with pytest.raises(DataError, match=r"boxes\.tsv: is not a benchmark file"):
        stage_costs(tmp_path)


def test_an_empty_benchmark_file_counts_no_job(tmp_path: Path) -> None:
    (tmp_path / "boxes.tsv").write_text("")
    assert stage_costs(tmp_path) == []
    (tmp_path / "scenes.tsv").write_text("s\n2.0\n")
    assert [(cost["stage"], cost["jobs"]) for cost in stage_costs(tmp_path)] == [("scenes", 1)]


def test_controls_are_predictions_that_cost(results: Path, tmp_path: Path) -> None:
    summary = read_json(results / "report" / "summary.json")
    summary["sources"]["3drs/sqa3d-text_only"] = ""
    write_json(tmp_path / "report" / "summary.json", summary)
    timing = {"seconds": 5.0, "ranks": 2, "device": "cuda"}
    control = {"n": 18, "provenance": {"predictions_meta": {"timing": timing}}}
    write_json(tmp_path / "eval" / "3drs" / "sqa3d-text_only" / "metrics.json", control)
    with_one, without = run_costs(
        Results(folder=tmp_path, runs=SETTINGS.runs, benchmarks=SETTINGS.benchmarks, mix_names=())
    )
    assert (with_one["predict_seconds"], without["predict_seconds"]) == (5, 0)
    assert (with_one["questions"], without["questions"]) == (4 * 18, 3 * 18)
