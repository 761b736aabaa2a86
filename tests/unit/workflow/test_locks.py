"""Jobs end with their Snakemake; one process at a time writes a result; dead locks go."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from threedrs.errors import MachineError
from threedrs.workflow.locks import exclusive, remove_dead_lock
from threedrs.workflow.processes import STARTER

PATIENCE = 120.0  # seconds for what should happen soon, on a busy machine
# A stand-in for Snakemake: names itself, starts a shell with a job, and says the job's processes.
SNAKEMAKE = """
import subprocess, sys, time
from threedrs.workflow.processes import name_snakemake
name_snakemake()
subprocess.Popen(["bash", "-c", f"{sys.executable} -c '$JOB' | cat"])
time.sleep(600)
"""
JOB = """
import os, subprocess, sys, time
from threedrs.workflow.processes import end_with_snakemake
end_with_snakemake()
own = subprocess.Popen(["sleep", "60"])
print(os.getpid(), own.pid, flush=True)
time.sleep(600)
"""
HOLDER = """
import sys, time
from pathlib import Path
from threedrs.workflow.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(600)
"""


def start(code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )


def soon(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_job_and_its_processes_end_with_their_snakemake() -> None:
    job = JOB.strip().replace("\n", "; ").replace('"', '\\"')
    snakemake = start(SNAKEMAKE.replace("$JOB", job))
    own = [int(word) for word in first_line(snakemake).split()]
    assert len(own) == 2
    assert not any(map(is_gone, own))
    snakemake.kill()  # and not waited for: a process that is gone but counted is gone as well
    assert soon(lambda: all(map(is_gone, own)))
    snakemake.wait()


def test_a_job_whose_snakemake_is_gone_already_ends_at_once() -> None:
    naming = start(
        "import os; from threedrs.workflow.processes import *; name_snakemake();"
        " print(os.environ[STARTER])"
    )
    gone = first_line(naming).strip()
    naming.wait()
    job = start(JOB, **{STARTER: gone})
    assert job.wait(timeout=PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("starter", ["", "elsewhere pid:[1] 1 1"])
def test_a_job_of_nobody_or_of_another_machine_goes_on(starter: str) -> None:
    job = start(JOB.replace("time.sleep(600)", "own.kill(); time.sleep(1)"), **{STARTER: starter})
    assert job.wait(timeout=PATIENCE) == 0


def test_a_second_writer_waits_and_then_names_the_first(tmp_path: Path) -> None:
    result = tmp_path / "deeper" / "train-000.json"
    holder = start(HOLDER, str(result))
    assert first_line(holder) == "holds\n"
    with pytest.raises(MachineError) as raised, exclusive(result, patience=0.3):
        pass
    assert str(raised.value) == (
        f"{result}: process {holder.pid} on {socket.gethostname()} is at work on it; wait until "
        "that has ended, or end it, and run the same command again"
    )
    holder.kill()
    with exclusive(result):
        pass
    with exclusive(result, patience=0.0):
        pass
    holder.wait()


def test_a_slurm_job_is_named(tmp_path: Path) -> None:
    holder = start(HOLDER, str(tmp_path / "mix"), SLURM_JOB_ID="77")
    first_line(holder)
    with (
        pytest.raises(MachineError, match=r"\(Slurm job 77\) is at work"),
        exclusive(tmp_path / "mix", patience=0.0),
    ):
        pass
    holder.kill()
    holder.wait()


def test_a_claim_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(MachineError, match=r"\.a\.lock: cannot be written \("),
        exclusive(tmp_path / "file" / "a"),
    ):
        pass


SNAKEMAKE_LOCKS = """
import sys, time
from pathlib import Path
from threedrs.workflow.locks import remove_dead_lock
print(remove_dead_lock(Path(sys.argv[1])), flush=True)
(Path(sys.argv[1]) / "locks").mkdir(exist_ok=True)
(Path(sys.argv[1]) / "locks" / "0.output.lock").touch()
time.sleep(600)
"""


def remove_in_a_process(state: Path, *options: str) -> str:
    code = "import sys; from pathlib import Path; from threedrs.workflow.locks import *; "
    said = start(code + "print(remove_dead_lock(Path(sys.argv[1])))", str(state), *options)
    line = first_line(said).strip()
    said.wait()
    return line


def test_only_a_dead_snakemakes_lock_is_removed(tmp_path: Path) -> None:
    state = tmp_path / ".snakemake"
    first = start(SNAKEMAKE_LOCKS, str(state))
    assert first_line(first) == "None\n"
    lock = state / "locks" / "0.output.lock"
    assert soon(lock.exists)
    second = start(SNAKEMAKE_LOCKS, str(state))  # another target in the same folder, say
    assert first_line(second) == "None\n"
    assert lock.exists()
    first.kill()
    first.wait()
    assert remove_in_a_process(state) == "None"  # the second one lives
    assert lock.exists()
    second.kill()
    second.wait()
    said = remove_in_a_process(state)
    assert said == f"removed the lock that a killed Snakemake left in {state / 'locks'}"
    assert not lock.exists()


def test_a_lock_from_another_machine_is_left_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.input.lock").touch()
    (tmp_path / "alive").write_text("login7 123\n")
    wanted = f"the lock in {tmp_path / 'locks'} is of a Snakemake on login7; if none runs there any"
    for _ in range(2):
        assert remove_in_a_process(tmp_path).startswith(wanted)
        assert (tmp_path / "locks" / "0.input.lock").exists()
    assert remove_in_a_process(tmp_path, "--unlock").startswith("removed the lock")
    assert not (tmp_path / "locks").exists()
    assert "login7" not in (tmp_path / "alive").read_text()


def test_a_snakemake_elsewhere_that_has_no_lock_yet_is_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "alive").write_text("login7 123\n")
    assert remove_in_a_process(tmp_path) == "None"  # a dry run here, while login7's plans
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.input.lock").touch()
    assert "is of a Snakemake on login7;" in remove_in_a_process(tmp_path)
    assert (tmp_path / "alive").read_text() == "login7 123\n"


def test_a_snakemake_elsewhere_that_ended_by_itself_is_forgotten(tmp_path: Path) -> None:
    elsewhere = (
        "import socket, sys; from pathlib import Path; socket.gethostname = lambda: 'login7'; "
    )
    elsewhere += "from threedrs.workflow.locks import *; remove_dead_lock(Path(sys.argv[1]))"
    assert start(elsewhere, str(tmp_path)).wait(timeout=PATIENCE) == 0
    (tmp_path / "locks").mkdir()
    assert remove_in_a_process(tmp_path) == "None"
    (tmp_path / "locks" / "0.input.lock").touch()
    assert remove_in_a_process(tmp_path).startswith("removed the lock")


def test_a_folder_that_cannot_be_written_is_left_to_snakemake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert remove_dead_lock(tmp_path / "file" / ".snakemake") is None
