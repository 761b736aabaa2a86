"""Jobs side by side take different GPUs, and give them back when they end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from threedrs.distributed.gpus import own_device, visible_gpus

CLAIM = """
import os, sys, tempfile
from threedrs.distributed.gpus import claim_gpus
tempfile.tempdir = sys.argv[1]
claim_gpus(int(sys.argv[2]))
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claim(tmp_path: Path):
    """Start a job that claims GPUs of those given; return it and what it sees."""
    running: list[subprocess.Popen[str]] = []

    def start(gpus: str, count: int = 1) -> tuple[subprocess.Popen[str], str]:
        job = subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(tmp_path), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": gpus},
        )
        running.append(job)
        assert job.stdout is not None
        return job, job.stdout.readline().strip()

    yield start
    for job in running:
        job.kill()
        job.communicate()


def test_each_job_has_its_own(claim) -> None:
    jobs, said = zip(*(claim("0,1") for _ in range(3)), strict=True)
    assert said == ("0", "1", "0")  # the third shares
    jobs[1].kill()
    jobs[1].wait()
    assert claim("0,1")[1] == "1"


def test_jobs_of_several_have_their_own_and_share_evenly(claim) -> None:
    said = [claim("0,1,2,3,4", count)[1] for count in (2, 1, 2, 2, 4, 9)]
    assert said == ["0,1", "2", "3,4", "0,1", "0,2,3,4", "0,1,2,3,4"]


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_scheduler_gave_is_kept(claim, count: int) -> None:
    assert claim("5", count)[1] == "5"
    assert claim("", count)[1] == ""
    assert [claim("GPU-5e,MIG-GPU-7a/1/0", count)[1] for _ in range(2)] == (
        ["GPU-5e", "MIG-GPU-7a/1/0"] if count == 1 else ["GPU-5e,MIG-GPU-7a/1/0"] * 2
    )


def test_gpus_of_a_container_count_from_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia3", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 3")
    assert visible_gpus(tmp_path) == ["5", "3"]


def test_a_ranks_gpu_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled kernels and recorded passes run there, and not where their tensors are."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert own_device(1) == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 1)]
