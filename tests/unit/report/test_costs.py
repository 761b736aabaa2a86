"""What the stages cost, from the benchmark files that Snakemake writes."""

from pathlib import Path

import pytest

from threedrs.errors import DataError
from threedrs.report.costs import StageCost, stage_costs


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
        StageCost(stage="boxes", jobs=2, seconds=4.0, longest=2.5, cpu_seconds=1.5, memory=89.0),
        StageCost(stage="aggregate", jobs=1, seconds=0.2, longest=0.2),
    ]


@pytest.mark.parametrize("text", ["a\tb\n1\t2\n", "s\tmax_rss\nsoon\t3\n"])
def test_what_is_not_a_benchmark_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "boxes.tsv").write_text(text)
    with pytest.raises(DataError, match=r"boxes\.tsv: is not a benchmark file"):
        stage_costs(tmp_path)
