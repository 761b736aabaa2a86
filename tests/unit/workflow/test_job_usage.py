"""What jobs used, from the benchmark files that Snakemake writes."""

from pathlib import Path

import pytest

from threedrs.errors import DataError
from threedrs.workflow.job_usage import JobRecord, read_job_records


def test_a_row_is_a_job(tmp_path: Path) -> None:
    for name, text in {
        "boxes/train-000.tsv": "s\th:m:s\tmax_rss\tcpu_time\n1.5\t0:00:01\t89.0\t0.9\n",
        "aggregate.tsv": "s\tmax_rss\tcpu_time\tthreads\tresources\n0.2\tNA\t-\t1\t{}\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert list(read_job_records(tmp_path)) == [
        JobRecord(rule="aggregate", seconds=0.2),
        JobRecord(rule="boxes", seconds=1.5, memory=89.0, cpu_seconds=0.9),
    ]


@pytest.mark.parametrize("text", ["a\tb\n1\t2\n", "s\tmax_rss\nsoon\t3\n"])
def test_what_is_not_a_benchmark_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "boxes.tsv").write_text(text)
    with pytest.raises(DataError, match=r"boxes\.tsv: is not a benchmark file"):
        list(read_job_records(tmp_path))
