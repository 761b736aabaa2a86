"""What goes wrong on a cluster ends in one clear line, and the same command finishes the rest.

The smallest rules, on a real Slurm with two stand-in GPUs; slurm_recorded.py has the longer ones.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import pytest
import yaml

from fixtures.checkout import Checkout, make_checkout
from fixtures.forked_jobs import forked_python
from fixtures.slurm_cluster import GPUS, running_cluster, short_memory
from fixtures.slurm_jobs import (
    Running,
    explained,
    look_often,
    slurm_jobs,
    snakemake,
    submitted,
    wait_until,
)

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

CONFIG = {"data": {"demo": {"scenes": 2, "seed": 3, "frames": 30}}, "frames": {"count": 3}}
RECORDS = ["scanrefer_val", "multi3drefer_val", "scan2cap_val", "scanqa_val", "sqa3d_test"]
FILES = [f"results/instructions/{name}.jsonl" for name in RECORDS]
A_GPU = ("--set-resources", "convert_instructions:gpu=1", "--")
TOO_LITTLE = 150  # MB: less than Snakemake itself takes
NODE = ("scontrol", "update", "nodename=node1")
# All answers of this sbatch have a banner with numbers around them; the second one is lost.
SBATCH = """#!/bin/sh
printf 'Welcome to Kl\\374ster 2026: 12 nodes\\n'
/usr/bin/sbatch "$@" || exit
echo 3 jobs of yours are queued
echo x >>{folder}/calls
test "$(wc -l <{folder}/calls)" = 2 || exit 0
echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2
exit 1
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    yield from running_cluster()


@pytest.fixture(scope="module")
def ready(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the boxes are there, and the conversion of records is next."""
    checkout = make_checkout(tmp_path_factory.mktemp("faults") / "checkout")
    look_often(checkout)
    (checkout.folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    boxes = ("results/boxes/train-000.json", "results/boxes/val-000.json")
    said = checkout.snakemake(*boxes, "--cores", "2", config=checkout.folder / "run.yaml")
    assert said.returncode == 0, said.stdout[-3000:]
    return checkout


@pytest.fixture(autouse=True)
def _nothing_left(cluster: Path, ready: Checkout) -> Iterator[None]:
    """Leave neither jobs nor records, and the profile as it was."""
    profile = ready.folder / "slurm/config.yaml"
    text = profile.read_text()
    yield
    (cluster / "hold").unlink(missing_ok=True)
    profile.write_text(text)
    if jobs := [job.number for job in slurm_jobs("PENDING", "RUNNING")]:
        subprocess.run(["scancel", *jobs], check=True)
    for path in (ready.folder / "results/instructions").glob("*"):
        path.unlink()


def started(checkout: Checkout, *arguments: str) -> AbstractContextManager[Running]:
    """Start Snakemake; it and its jobs are forks, which end with what Slurm has started."""
    config = checkout.folder / "run.yaml"
    return snakemake(checkout, *arguments, config=config, python=forked_python())


def started_for_itself(
    checkout: Checkout, *arguments: str, tools: Path | None = None
) -> AbstractContextManager[Running]:
    """Start Snakemake; it and its jobs are processes that a signal or Slurm finds."""
    return snakemake(checkout, *arguments, config=checkout.folder / "run.yaml", tools=tools)


def edit_profile(checkout: Checkout, before: str, after: str) -> None:
    path = checkout.folder / "slurm/config.yaml"
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def kill_step(job: str) -> list[psutil.Process]:
    """Kill what a job has started with `srun`, as the kernel does when memory runs out."""
    # Not what `scontrol listpids` names: of a step that is just starting, these are all processes
    # of the machine, this test's among them.
    of_step = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0"}
    processes = [
        process
        for process in psutil.process_iter(["environ"])
        if of_step.items() <= (process.info["environ"] or {}).items()
    ]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return processes


def test_cancelled_killed_and_drained_in_one_run(cluster: Path, ready: Checkout) -> None:
    """A GPU a job, so two run: one is cancelled, a node drains, and later a step is killed."""
    (cluster / "hold").touch()
    with started(ready, "--retries", "0", *A_GPU, *FILES) as run:
        wait_until(lambda: len(slurm_jobs()) == 5 and len(slurm_jobs("RUNNING")) == GPUS, run)
        first, _ = slurm_jobs("RUNNING")
        # Slurm gives the reason of a job when it has first tried to start it.
        reasons = {"Resources", "Priority"}
        wait_until(lambda: {job.reason for job in slurm_jobs("PENDING")} <= reasons, run)
        subprocess.run([*NODE, "state=drain", "reason=test"], check=True)
        subprocess.run(["scancel", first.number], check=True)
        wait_until(lambda: len(slurm_jobs("RUNNING")) == 1, run)
        (cluster / "hold").unlink()
        wait_until(lambda: not slurm_jobs("RUNNING"), run)
        assert len(slurm_jobs("PENDING")) == 3  # the drained node takes no more
        (cluster / "hold").touch()
        subprocess.run([*NODE, "state=resume"], check=True)
        wait_until(lambda: len(slurm_jobs("RUNNING")) == GPUS, run)
        third, _ = slurm_jobs("RUNNING")
        (cluster / "hold").unlink()
        wait_until(lambda: kill_step(third.number), run)
        assert run.ended() == 1
    (line,) = explained(run.said())
    lost = [job.comment.split("_wildcards_")[1].replace("_", " ") for job in (first, third)]
    assert line == (
        f"threedrs: error: convert_instructions {lost[0]}: Slurm: job {first.number} was "
        "cancelled; run the same command to go on"
    )
    assert f"SLURM-job '{third.number}' failed" in run.log()
    assert run.said().splitlines()[-1].startswith("threedrs: error: ")
    with started(ready, *A_GPU, *FILES) as run:
        assert run.ended() == 0, run.said()
    assert submitted(run.log()) == {f"convert_instructions {name}": 1 for name in lost}


def test_over_its_memory_then_enough(ready: Checkout) -> None:
    """The profile's own line, with a memory of which the first attempt takes more."""
    edit_profile(ready, 'mem_mb: "attempt * 3000"', f'mem_mb: "attempt * {TOO_LITTLE}"')
    with started_for_itself(ready, "--", FILES[0]) as run:
        assert run.ended() == 0, run.said()
        assert submitted(run.log()) == {"convert_instructions scanrefer val": 2}
    edit_profile(ready, f'"attempt * {TOO_LITTLE}"', f"{TOO_LITTLE}")
    (ready.folder / FILES[0]).unlink()
    with started_for_itself(ready, "--retries", "0", "--", FILES[0]) as run:
        assert run.ended() == 1, run.said()
    (line,) = explained(run.said())
    assert "took more memory than it had asked for; raise mem_mb" in line
    assert "slurm/config.yaml" in line


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (
            "slurm_partition: nosuch",
            "(Invalid partition name specified); slurm/config.yaml: set slurm_partition there to "
            "one that `sinfo` lists",
        ),
        (
            "mem_mb_per_cpu: 9000000",
            "(Requested node configuration is not available); slurm/config.yaml: no node has what "
            "the rule asks for: lower mem_mb, gpu, nodes or its threads there, or choose another "
            "slurm_partition",
        ),
    ],
)
def test_a_refused_submission_names_the_setting(ready: Checkout, setting: str, reason: str) -> None:
    edit_profile(ready, "  runtime: 240", f"  runtime: 240\n  {setting}")
    with started(ready, "--", *FILES[:2]) as run:
        assert run.ended() == 1, run.said()
    (line,) = explained(run.said())
    first, _, rest = line.partition(" val and 1 more: ")
    # Either may be the first to be submitted.
    job = first.removeprefix("threedrs: error: convert_instructions ")
    assert job in ("scanrefer", "multi3drefer")
    assert rest == f"Slurm: submission refused {reason}"
    assert not slurm_jobs("PENDING", "RUNNING")


def test_forgotten_jobs_and_lost_answers(cluster: Path, ready: Checkout, tmp_path: Path) -> None:
    """Snakemake sleeps until Slurm, which has no accounting, has forgotten its two jobs."""
    stand_in = tmp_path / "sbatch"
    stand_in.write_text(SBATCH.format(folder=tmp_path))
    stand_in.chmod(0o755)
    (cluster / "hold").touch()
    options = ("--retries", "0", "--latency-wait", "3", "--", *FILES[:2])
    with short_memory(2), started_for_itself(ready, *options, tools=tmp_path) as run:
        wait_until(lambda: run.log().count("has been submitted with SLURM jobid") == 2, run)
        first, second = sorted(slurm_jobs("RUNNING", "PENDING"), key=lambda job: int(job.number))
        os.kill(run.process.pid, signal.SIGSTOP)
        subprocess.run(["scancel", second.number], check=True)
        (cluster / "hold").unlink()
        wait_until(lambda: not slurm_jobs(), run)
        os.kill(run.process.pid, signal.SIGCONT)
        assert run.ended() == 1, run.said()
    said = run.said()
    assert list(submitted(run.log()).values()) == [1, 1]
    assert all(
        f"has been submitted with SLURM jobid {job.number} " in run.log() for job in (first, second)
    )
    # Stopped while it asked, it finds after the pause that `squeue` has been silent for long.
    lines = [line for line in explained(said) if "does not answer" not in line]
    assert len(lines) == 2, said
    lost, why = lines
    assert lost == (
        f"threedrs: Slurm: job {second.number} is in the memory of neither controller nor "
        "accounting, and has left no mark of a good end; it counts as failed"
    )
    # Its log says that it was cancelled if it had begun before Slurm ended it.
    name = second.comment.split("_wildcards_")[1].replace("_", " ")
    start = f"threedrs: error: convert_instructions {name}: Slurm: job {second.number} was "
    forgotten = "forgotten by Slurm before it left its mark of a good end"
    assert why in [
        f"{start}{what}; run the same command to go on" for what in ("cancelled", forgotten)
    ]
    made = [
        f"convert_instructions_wildcards_{name}"
        for name in RECORDS[:2]
        if (ready.folder / f"results/instructions/{name}.jsonl").is_file()
    ]
    assert made == [first.comment.removeprefix("rule_")]
