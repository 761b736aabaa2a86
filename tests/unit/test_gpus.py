"""Jobs side by side take different GPUs, and give them back when they end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLAIM = """
import os, sys
from pathlib import Path
from threedrs.gpus import claim_gpu
print(claim_gpu([0, 1], Path(sys.argv[1])), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    variables = {name: value for name, value in os.environ.items() if "CUDA" not in name}
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=variables | environment,
    )


@pytest.fixture
def jobs():
    running: list[subprocess.Popen[str]] = []
    yield running
    for job in running:
        job.kill()
        job.communicate()


def test_each_job_has_its_own(tmp_path: Path, jobs: list) -> None:
    said = []
    for _ in range(3):
        jobs.append(start(tmp_path))
        said.append(jobs[-1].stdout.readline().split())
    assert said == [["0", "0"], ["1", "1"], ["0", "0"]]  # the third shares
    jobs[1].kill()
    jobs[1].wait()
    jobs.append(start(tmp_path))
    assert jobs[-1].stdout.readline().split() == ["1", "1"]


def test_what_a_scheduler_gave_is_kept(tmp_path: Path, jobs: list) -> None:
    jobs.append(start(tmp_path, CUDA_VISIBLE_DEVICES="5"))
    assert jobs[-1].stdout.readline().split() == ["None", "5"]
