"""The training command as a process: started, waited for, and what it has logged so far."""

import os
import subprocess
import sys
import time
from pathlib import Path

from training_run import REPOSITORY

from threedrs.training.run_log import growing_log, read_rows

OURS = ("threedrs.distributed.launch", "--gpus")
TORCHRUN = ("torch.distributed.run", "--standalone", "-m", "--nproc-per-node")


def start(folder: Path, ranks: int = 1, launcher: tuple[str, ...] = OURS) -> subprocess.Popen:
    kept = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    environment = kept | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    command = ["threedrs.train", "--config", "results/train/3drs/config.json"]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, str(ranks), *command],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, text = process.communicate(timeout=300)
    return process.returncode, text


def wait_for_row(folder: Path, process: subprocess.Popen, step: int) -> None:
    log = growing_log(folder / "results/train/3drs")
    while process.poll() is None and not any(row["step"] >= step for row in read_rows(log)):
        time.sleep(0.05)


def loss_rows(folder: Path) -> list[dict]:
    rows = read_rows(growing_log(folder / "results/train/3drs"))
    return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in rows]
