"""Requests against use, from benchmark files and from what Slurm says of the queue."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from threedrs.cli import app
from threedrs.efficiency import advice, queue_waits, rule_uses, table
from threedrs.errors import DataError
from threedrs.workflow.job_usage import read_job_records

HEAD = (
    "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\tjobid\t"
    "rule_name\twildcards\tparams\tthreads\tcpu_usage\tresources\tinput_size_mb"
)


def write_job(
    path: Path, *, seconds: float, memory: str, cpu: str, threads: int, resources: str
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    used = f"{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0.0\t0.0\t50.0\t{cpu}"
    path.write_text(f"{HEAD}\n{used}\t3\trule\t{{}}\t{{}}\t{threads}\t9.0\t{resources}\t{{}}\n")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    asked = "{'mem_mb': 64000, 'runtime': 720, 'gpu': 1, 'tmpdir': '/scratch'}"
    for name, seconds, memory in (("scanqa", 600.0, "9000.0"), ("sqa3d", 1200.0, "12000.0")):
        write_job(
            folder / f"benchmarks/predict/3drs/{name}.tsv",
            seconds=seconds,
            memory=memory,
            cpu=str(2 * seconds),
            threads=8,
            resources=asked,
        )
    write_job(
        folder / "benchmarks/aggregate.tsv",
        seconds=0.2,
        memory="40.0",
        cpu="NA",
        threads=1,
        resources="{'mem_mb': 3000, 'runtime': 20}",
    )
    return folder


def test_rules_against_their_largest_job(results: Path) -> None:
    waits = {"predict": [3.0, 60.0, 9.0]}
    uses = rule_uses(read_job_records(results / "benchmarks"), waits)
    assert [use.rule for use in uses] == ["predict", "aggregate"]
    predict, aggregate = uses
    assert (predict.memory, predict.longest, predict.threads) == (12000.0, 1200.0, 8)
    assert predict.cores == pytest.approx(2.0)
    assert predict.idle_cores
    assert predict.asked("gpu") == 1
    # 1.5 x 12000 + 400 MB, up to the next 500; 3 x 20 minutes
    assert predict.enough() == {"mem_mb": 18500, "runtime": 60}
    # Its memory was measured once, if at all; 10 minutes are half of 20.
    assert aggregate.enough() == {"runtime": 10}
    assert advice(uses) == [
        "  predict: {mem_mb: 18500, runtime: 60}",
        "  aggregate: {runtime: 10}",
    ]
    rows = table(uses)
    assert rows[1] == [
        "predict",
        "2",
        "8*",
        "2.0",
        "64000*",
        "12000",
        "720*",
        "20.0",
        "1",
        "9",
        "60",
    ]
    assert " ".join(rows[2]) == "aggregate 1 1 - 3000 40 20* 0.0 - - -"


def test_files_without_requests_still_count(tmp_path: Path) -> None:
    path = tmp_path / "boxes/train-000.tsv"
    path.parent.mkdir()
    path.write_text("s\th:m:s\tmax_rss\tcpu_time\n1.5\t0:00:01\t89.0\t0.9\n")
    (use,) = rule_uses(read_job_records(tmp_path), {})
    assert (use.rule, use.threads, use.asked("mem_mb"), use.enough()) == ("boxes", 0, None, {})


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\n1\t2\n",
        "s\tmax_rss\nsoon\t3\n",
        "s\tthreads\tresources\n1\t1\t__import__('os').getpid()\n",
        "s\tthreads\tresources\n1\t1\t[1]\n",
    ],
)
def test_what_is_no_benchmark_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "boxes.tsv").write_text(text)
    with pytest.raises(DataError, match=r"boxes\.tsv: is no benchmark file"):
        list(read_job_records(tmp_path))


def _command(folder: Path, name: str, text: str, status: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
    path.chmod(0o755)


def test_waits_come_from_accounting_or_else_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    here, day = tmp_path.resolve(), "2026-11-22T19"
    controller = [
        f"{day}:00:00|{day}:00:05|{here}|rule_boxes_wildcards_train-000",
        f"{day}:00:00|{day}:01:00|{here}|rule_boxes_wildcards_val-000",
        f"{day}:00:00|N/A|{here}|rule_train_wildcards_3drs",
        f"{day}:00:00|{day}:00:07|{here}|rule_scene_report",
        f"{day}:00:00|{day}:00:09|/elsewhere|rule_boxes_wildcards_val-000",
        f"{day}:00:00|{day}:00:09|{here}|(null)",
    ]
    _command(tmp_path, "squeue", "\n".join(controller))
    _command(tmp_path, "sacct", "Slurm accounting storage is disabled", status=1)
    assert queue_waits(tmp_path) == {"boxes": [5.0, 60.0], "scene_report": [7.0]}

    line = "sbatch --parsable --comment {} -A lab --wrap=python"
    accounting = [
        f"{day}:00:00|{day}:02:00|{here}|{line.format('rule_train_wildcards_3drs')}",
        f"{day}:00:00|Unknown|{here}|{line.format('rule_score')}",
        f"{day}:00:00|{day}:00:01|{here}|{line.format('rule_score')}",
    ]
    _command(tmp_path, "sacct", "\n".join(accounting))
    assert queue_waits(tmp_path) == {"train": [120.0], "score": [1.0]}


def test_the_command(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(results))  # no Slurm
    run = CliRunner()
    said = run.invoke(app, ["efficiency", "--results", str(results)])
    assert said.exit_code == 0, said.output
    assert "64000*" in said.output
    assert "predict: {mem_mb: 18500, runtime: 60}" in said.output
    table = run.invoke(app, ["efficiency", "--results", str(results), "--markdown"]).output
    assert "| predict | 2 | 8* | 2.0 |" in table
    nothing = run.invoke(app, ["efficiency", "--results", str(results / "none")])
    assert isinstance(nothing.exception, DataError)
    assert "no job has finished here" in str(nothing.exception)


def test_waits_are_those_of_the_folder_that_links_to_the_results(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, commands = tmp_path / "checkout", tmp_path / "bin"
    for folder in (checkout, commands):
        folder.mkdir()
    (checkout / "results").symlink_to(results)
    place = checkout.resolve()
    job = f"2026-11-22T19:00:00|2026-11-22T19:00:41|{place}|rule_predict_wildcards_3drs"
    _command(commands, "squeue", job)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.chdir(checkout)
    said = CliRunner().invoke(app, ["efficiency", "--markdown"])
    assert "| 41 | 41 |" in said.output
