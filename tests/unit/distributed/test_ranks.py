"""Which rank a process is: torchrun's variables, Slurm's, or none."""

import mmap
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from threedrs.distributed import ranks as ranks_module
from threedrs.distributed.ranks import (
    is_lone,
    least_memory,
    own_rank,
    peak_resident,
    rank_variables,
)
from threedrs.errors import MachineError
from threedrs.workflow.processes import run_text

# As Slurm sets them for the second of two tasks, one a node.
STEP = {
    "SLURM_JOB_ID": "1203",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
SCONTROL = """#!/bin/sh
case "$*" in
"show hostnames node[07-08]") printf 'node07\\nnode08\\n' ;;
"--oneliner show node node07") echo "NodeName=node07 Arch=x86_64 NodeAddr=10.1.0.7 Port=6818" ;;
*) echo "not asked for: $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "scontrol"
    script.write_text(SCONTROL)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return script


def test_lone_process_meets_nobody():
    assert is_lone({})
    assert own_rank({}) == 0
    assert rank_variables({})["WORLD_SIZE"] == "1"
    assert rank_variables({})["MASTER_PORT"] == "0"


def test_torchruns_variables_stand_as_they_are():
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}
    given |= {"MASTER_PORT": "29500"}

    assert not is_lone(given)
    assert own_rank(given) == 3
    assert rank_variables(STEP | given | {"OTHER": "1"}) == given


@pytest.mark.usefixtures("scontrol")
def test_tasks_of_a_step_meet_on_its_first_node():
    assert not is_lone(STEP)
    assert own_rank(STEP) == 1
    assert rank_variables(STEP) == {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "10.1.0.7",
        "MASTER_PORT": str(12000 + (1203 * 16 + 1) % 20000),
    }


@pytest.mark.usefixtures("scontrol")
def test_tasks_agree_on_a_port_and_neighbouring_steps_and_jobs_do_not():
    def port(**changes: str) -> str:
        return rank_variables(STEP | changes)["MASTER_PORT"]

    assert port(SLURM_PROCID="0", SLURM_LOCALID="1") == port()
    others = {port(SLURM_STEP_ID="2"), port(SLURM_JOB_ID="1204"), port(SLURM_JOB_ID="1202")}
    assert port() not in others
    assert len(others) == 3
    assert all(12000 <= int(one) < 32000 for one in others)


def test_place_that_the_user_sets_stays():
    place = {"MASTER_ADDR": "ib-node07", "MASTER_PORT": "29400"}
    found = rank_variables(STEP | place)
    assert {name: found[name] for name in place} == place


def test_step_of_one_task_and_a_batch_script_are_lone():
    assert is_lone(STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
    batch = {"SLURM_JOB_ID": "1203", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    assert is_lone(batch)
    assert own_rank(batch) == 0


def test_slurm_that_does_not_answer_is_one_line_with_a_remedy(scontrol):
    scontrol.write_text("#!/bin/sh\necho 'slurm_load_node error: no controller' >&2; exit 1\n")
    with pytest.raises(MachineError, match=r"`scontrol show .*no controller\); set MASTER_ADDR"):
        rank_variables(STEP)


def test_the_memory_of_a_run_is_that_of_its_fullest_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free 50 and 40 bytes, of which this process holds 5 besides; the other one holds nothing."""
    others = [-40.0]
    monkeypatch.setattr(ranks_module, "_largest", lambda ranks, value: max(value, *others))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5)
    ranks: Any = SimpleNamespace(device=torch.device("cuda", 0))
    assert least_memory(ranks) == 40
    others = [-60.0]
    assert least_memory(ranks) == 55
    ranks.device = torch.device("cpu")
    assert least_memory(ranks) is None


def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    """By `getrusage` a process begins with the peak of its parent."""
    held = bytearray(300 * 2**20)
    held[:: mmap.PAGESIZE] = b"1" * len(held[:: mmap.PAGESIZE])
    assert peak_resident() > len(held)
    code = "from threedrs.distributed.ranks import peak_resident; print(peak_resident())"
    started = run_text(sys.executable, "-c", code)
    assert 2**20 < int(started.stdout) < len(held)
