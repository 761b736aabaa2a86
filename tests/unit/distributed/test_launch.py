"""The launcher: what ranks are told, what goes on to them, and how a run ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from threedrs.distributed import launch

PATIENCE = 120.0  # seconds for what should happen soon, on a busy machine
SOURCE = Path(launch.__file__).parents[2]
RANK = """
import os, signal, sys, time
from pathlib import Path

number, folder = os.environ["RANK"], Path(sys.argv[1])
mode = sys.argv[2]
if mode == "stop":
    def save(*ignored):
        time.sleep(1)
        (folder / f"saved{number}").touch()
        sys.exit(1)

    signal.signal(signal.SIGUSR1, save)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
names += ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"]
words = [os.environ.get(name, "none") for name in names]
(folder / f"rank{number}").write_text(" ".join([str(os.getpid()), *words]))
if mode == "end":
    sys.exit(0)
if mode == "fail" and number == "1":
    print("rank 1 says why", file=sys.stderr)
    sys.exit(3)
if mode == "killed" and number == "0":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "rank_module.py").write_text(RANK)
    patience = "from threedrs.distributed import launch as l; l.PATIENCE = 0.5; exit(l.main())"
    started = []

    def run(mode: str, *options: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", patience, *options, "rank_module", str(tmp_path), mode],
            env=os.environ | {"PYTHONPATH": f"{SOURCE}:{tmp_path}"},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def pids(folder: Path, count: int) -> list[int]:
    """Wait until the ranks have written their words, and return their process ids."""
    files = [folder / f"rank{number}" for number in range(count)]
    deadline = time.monotonic() + PATIENCE
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(file.read_text().split()[0]) for file in files]


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def told(folder: Path, count: int) -> list[list[str]]:
    """Return what each rank found in its environment."""
    pids(folder, count)
    return [(folder / f"rank{number}").read_text().split()[1:] for number in range(count)]


def test_ranks_know_their_place_and_where_to_meet(tmp_path, start):
    assert start("end", "--gpus", "3").wait(timeout=PATIENCE) == 0

    words = told(tmp_path, 3)
    assert [word[:3] for word in words] == [["0", "0", "3"], ["1", "1", "3"], ["2", "2", "3"]]
    ((address, port),) = {tuple(word[3:5]) for word in words}
    assert address == "127.0.0.1"
    assert int(port) > 1023


@pytest.mark.parametrize(("cores", "threads"), [("7", "3"), ("1", "1")])
def test_ranks_divide_the_cores_of_the_job(tmp_path, start, monkeypatch, cores, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", cores)  # as Snakemake does
    monkeypatch.setenv("MKL_NUM_THREADS", cores)
    assert start("end", "--gpus", "2", "--cores", cores).wait(timeout=PATIENCE) == 0

    assert [word[5:7] for word in told(tmp_path, 2)] == [[threads, threads]] * 2


def test_runs_side_by_side_have_gpus_of_their_own(tmp_path, start, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # the locks' place
    start("wait", "--gpus", "2")
    assert [word[7] for word in told(tmp_path, 2)] == ["0,1", "0,1"]

    assert start("end", "--gpus", "2").wait(timeout=PATIENCE) == 0
    assert [word[7] for word in told(tmp_path, 2)] == ["2,3", "2,3"]


def test_stop_signal_reaches_all_ranks_which_may_take_their_time(tmp_path, start):
    process = start("stop", "--gpus", "2")
    pids(tmp_path, 2)

    process.send_signal(signal.SIGUSR1)

    assert process.wait(timeout=PATIENCE) == 1
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()


def test_failed_rank_ends_the_others_after_it_has_spoken(tmp_path, start):
    process = start("fail", "--gpus", "2")
    _, text = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert text == "rank 1 says why\n"
    assert not any(is_running(pid) for pid in pids(tmp_path, 2))


def test_killed_rank_is_named(start):
    process = start("killed", "--gpus", "2")
    _, text = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert text == (
        "launch: rank 0 was ended by SIGKILL; give it more memory if that ran out, and run the "
        "same command to go on\n"
    )


def test_ranks_that_a_passed_on_signal_ends_lacked_no_memory(tmp_path, start):
    process = start("wait", "--gpus", "2")
    pids(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert text.splitlines() == [
        f"launch: rank {rank} was ended by SIGTERM; run the same command to go on"
        for rank in range(2)
    ]


def test_ranks_do_not_outlive_a_killed_launcher(tmp_path, start):
    process = start("stop", "--gpus", "2")
    started = pids(tmp_path, 2)

    process.kill()
    process.wait()

    deadline = time.monotonic() + PATIENCE
    while any(is_running(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_slurm_tasks_become_one_srun(tmp_path, start, monkeypatch):
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/line\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert start("end", "--nodes", "2", "--tasks", "16", "--cores", "8").wait(timeout=PATIENCE) == 0

    assert (tmp_path / "line").read_text().split() == [
        *("--nodes=2", "--ntasks=16", "--ntasks-per-node=8", "--cpus-per-task=8"),
        *("--distribution=block", "--kill-on-bad-exit=1", "--input=none"),
        *(sys.executable, "-m", "rank_module", str(tmp_path), "end"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nodes", "2"), "launch: 2 nodes, but one task; set the resource `tasks` to the nodes"),
        (("--nodes", "2", "--tasks", "3"), "launch: 3 tasks do not divide over 2 nodes"),
        (("--nodes", "1", "--tasks", "2"), "launch: srun is not on this machine"),
    ],
)
def test_impossible_tasks_are_one_line(start, monkeypatch, options, message):
    monkeypatch.setenv("PATH", "/nowhere")
    process = start("end", *options)
    _, text = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert text.startswith(message)
    assert text.count("\n") == 1
