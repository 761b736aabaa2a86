"""Training jobs are warned before their time limit, save, and go on: on one node and on two.

``scancel --signal=USR1`` goes the way of the warning that ``--signal=USR1@600`` asks Slurm for: to
the steps of the job, not to its batch script. The job on two nodes is of interpreters; the other
processes are forks, which hand the warning on.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.checkout import Checkout
from fixtures.forked_jobs import forked_python
from fixtures.slurm_cluster import running_cluster
from fixtures.training_run import write_run
from fixtures.warned_training import (
    CONFIG,
    RUN,
    STEPS,
    TWO_GPUS,
    assert_saved,
    rows,
    start,
    start_snakemake,
    wait_for_step,
)
from fixtures.warned_training import end_what_was_started as end_what_was_started  # fixtures
from fixtures.warned_training import prepared as prepared

pytestmark = pytest.mark.slow

TWO_NODES = (
    *("--set-resources", "train:nodes=2", "train:tasks=2", "train:mpi=srun", "train:gpu=0"),
    *("train:gres=gpu:1", "train:slurm_extra='--ntasks-per-node=1 --signal=USR1@600'"),
)


@pytest.fixture
def cluster() -> Iterator[Path]:
    yield from running_cluster(nodes=2)


def jobs() -> list[str]:
    return subprocess.check_output(["squeue", "-h", "-o", "%A"], text=True).split()


def submit_and_warn(
    checkout: Checkout, step: int, *options: str, python: Path | str = sys.executable
) -> None:
    """Run training as a job, warn it after ``step`` optimizer steps, and wait for its end.

    Snakemake on the submitting side is then killed: it would look at the queue again much later.
    """
    command = ("--profile", "slurm", "--nolock", *options)
    process = start_snakemake(checkout, *command, python=python)
    wait_for_step(checkout, step, process)
    (job,) = jobs()
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    while job in jobs():
        time.sleep(0.2)
    process.kill()
    process.wait()


@pytest.mark.slurm
@pytest.mark.usefixtures("cluster")
def test_one_node_two_nodes_and_no_node_make_one_curve(prepared: Checkout, tmp_path: Path) -> None:
    entry = ("threedrs.train", "--config", f"{RUN}/config.json")
    entry += ("--execution", json.dumps(CONFIG["execution"]))
    alone = Checkout(tmp_path / "alone")
    write_run(alone.folder, samples=4 * STEPS)
    for name in ("src", "config"):
        (alone.folder / name).symlink_to(prepared.folder / name)
    forked = forked_python()
    settings = start_snakemake(prepared, "--cores", "1", "--until", "run_config", python=forked)
    assert settings.wait(timeout=300) == 0, settings.communicate()[0]
    shutil.copy(prepared.folder / RUN / "config.json", alone.folder / RUN)
    reference = start(alone, *entry, python=forked)  # beside the others

    submit_and_warn(prepared, 2, *TWO_GPUS, python=forked)
    assert_saved(prepared, ranks=2)
    submit_and_warn(prepared, 5, *TWO_NODES)
    assert_saved(prepared, ranks=2)
    last = start(prepared, *entry, python=forked)
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert "goes on from step-" in said

    said, _ = reference.communicate(timeout=300)
    assert reference.returncode == 0, said
    assert len(rows(alone.folder)) == STEPS
    for ours, theirs in zip(rows(prepared.folder), rows(alone.folder), strict=True):
        assert (ours["step"], ours["samples"]) == (theirs["step"], theirs["samples"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3), ours["step"]
