"""Training jobs are warned before their time limit, save, and go on: on one node and on two.

``scancel --signal=USR1`` goes the way of the warning that ``--signal=USR1@600`` asks Slurm for: to
the steps of the job, not to its batch script.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.checkout import Checkout
from fixtures.slurm_cluster import running_cluster
from fixtures.training_run import FRAMES, SCENES, write_run

pytestmark = pytest.mark.slow

RUN = Path("results/train/3drs")
STEPS = 10
CONFIG = {
    "data": {"demo": {"scenes": len(SCENES) + 1, "seed": 0}},
    "frames": {"count": FRAMES},
    "train": {
        "epochs": 1,
        "global_batch": 4,
        "pack": 2,
    },
    "execution": {"save_every": 100, "log_every": 1, "workers": 0},
    "runs": {"3drs": {}},
    "report": {"baseline": "3drs"},
}
TWO_NODES = (
    *("--set-resources", "train:nodes=2", "train:tasks=2", "train:mpi=srun", "train:gpu=0"),
    *("train:gres=gpu:1", "train:slurm_extra='--ntasks-per-node=1 --signal=USR1@600'"),
)
TWO_GPUS = ("--set-resources", "train:gpu=2")


@pytest.fixture
def cluster() -> Iterator[Path]:
    yield from running_cluster(nodes=2)


@pytest.fixture
def prepared(checkout: Checkout) -> Checkout:
    """A checkout in which only training is left to do."""
    write_run(checkout.folder, samples=4 * STEPS)
    (checkout.folder / RUN / "config.json").unlink()  # the workflow writes its own
    shard = checkout.folder / "results/scenes/shards/train-000.json"
    shard.parent.mkdir(parents=True)
    shard.write_text("{}")
    (checkout.folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    return checkout


started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _end_what_was_started() -> Iterator[None]:
    yield
    for process in started:
        process.kill()
        process.wait()
    started.clear()


def start(checkout: Checkout, *arguments: str) -> subprocess.Popen[str]:
    """Start a module of Python in the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=checkout.folder,
        env=kept | {"PYTHONPATH": str(checkout.folder / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def start_snakemake(checkout: Checkout, *options: str) -> subprocess.Popen[str]:
    """Start the workflow's training alone."""
    rules = ("--allowed-rules", "train", "run_config", "--", f"{RUN}/train.json")
    return start(checkout, "snakemake", *options, "--configfile", "run.yaml", *rules)


def rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / RUN / "checkpoints/log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_step(checkout: Checkout, step: int, process: subprocess.Popen[str]) -> None:
    while len(rows(checkout.folder)) < step:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def assert_saved(checkout: Checkout, ranks: int, by: str = "SIGUSR1") -> None:
    """The training said so, and left a checkpoint of ``ranks`` ranks before its end."""
    log = (checkout.folder / "results/logs/train/3drs.log").read_text()
    assert f"stopped by {by}, saved at step" in log, log
    newest = max((checkout.folder / RUN / "checkpoints").glob("step-*"))
    manifest = json.loads((newest / "manifest.json").read_text())
    assert (manifest["ranks"], manifest["step"]) == (ranks, len(rows(checkout.folder)))
    assert manifest["step"] < STEPS
    assert not (checkout.folder / RUN / "train.json").exists()


def jobs() -> list[str]:
    return subprocess.check_output(["squeue", "-h", "-o", "%A"], text=True).split()


def submit_and_warn(checkout: Checkout, step: int, *options: str) -> None:
    """Run training as a job, warn it after ``step`` optimizer steps, and wait for its end.

    Snakemake on the submitting side is then killed: it would look at the queue again much later.
    """
    process = start_snakemake(checkout, "--profile", "slurm", "--nolock", *options)
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
    settings = start_snakemake(prepared, "--cores", "1", "--until", "run_config")
    assert settings.wait(timeout=60) == 0, settings.communicate()[0]
    shutil.copy(prepared.folder / RUN / "config.json", alone.folder / RUN)
    reference = start(alone, *entry)  # beside the others

    submit_and_warn(prepared, 2, *TWO_GPUS)
    assert_saved(prepared, ranks=2)
    submit_and_warn(prepared, 5, *TWO_NODES)
    assert_saved(prepared, ranks=2)
    last = start(prepared, *entry)
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert "goes on from step-" in said

    said, _ = reference.communicate(timeout=300)
    assert reference.returncode == 0, said
    assert len(rows(alone.folder)) == STEPS
    for ours, theirs in zip(rows(prepared.folder), rows(alone.folder), strict=True):
        assert (ours["step"], ours["samples"]) == (theirs["step"], theirs["samples"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3), ours["step"]


def test_warning_that_reaches_snakemake_alone_reaches_the_training(prepared: Checkout) -> None:
    process = start_snakemake(prepared, "--cores", "1")
    wait_for_step(prepared, 3, process)

    process.send_signal(signal.SIGUSR1)

    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert_saved(prepared, ranks=1)


def test_ctrl_c_saves(prepared: Checkout) -> None:
    process = start_snakemake(prepared, "--cores", "1", *TWO_GPUS)
    wait_for_step(prepared, 3, process)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does

    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert_saved(prepared, ranks=2, by="SIGINT")
