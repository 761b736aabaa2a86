"""Snakemake that goes on beside a test, and the jobs that Slurm has of it."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import SMALL, Checkout, named

PATIENCE = 150.0  # seconds for what should happen soon, on a busy machine


@dataclass(frozen=True)
class SlurmJob:
    """A job as ``squeue`` tells it."""

    number: str
    state: str
    reason: str
    comment: str  # rule and wildcards, as the executor plugin writes them


def slurm_jobs(*states: str) -> list[SlurmJob]:
    """Return the jobs in these states (none given: all that Slurm remembers)."""
    command = ["squeue", "-h", "-t", ",".join(states) or "all", "-o", "%A|%T|%r|%k"]
    lines = subprocess.check_output(command, text=True, timeout=60).splitlines()
    return [SlurmJob(*line.split("|", 3)) for line in lines]


def wait_until(happened: Callable[[], object], run: "Running", seconds: float = PATIENCE) -> None:
    """Wait for what should happen while Snakemake runs."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert run.process.poll() is None, run.said()
        assert time.monotonic() < deadline, f"{slurm_jobs()}\n{run.said()}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Running:
    """A Snakemake process and what it says."""

    process: subprocess.Popen
    output: Path

    def said(self) -> str:
        return self.output.read_text()

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for the end; return the exit status."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {slurm_jobs()}\n{self.said()}") from None


@contextmanager
def snakemake(checkout: Checkout, *arguments: str, config: Path = SMALL) -> Iterator[Running]:
    """Run Snakemake with the cluster profile beside the block; kill it where that fails."""
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--configfile", str(config)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    output = checkout.folder / "said.txt"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=checkout.folder,
            env=kept | {"PYTHONPATH": str(checkout.folder / "src"), "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Running(process, output)
    finally:
        process.kill()
        process.wait()


def submitted(text: str) -> Counter[str]:
    """Return the jobs that Snakemake gave to Slurm: rule and wildcards -> how often."""
    numbers = dict(re.findall(r"^Job (\d+): (.*)$", text, re.MULTILINE))
    given = re.findall(r"^Job (\d+) has been submitted with SLURM jobid", text, re.MULTILINE)
    return Counter(named(numbers[number]) for number in given)


def explained(text: str) -> list[str]:
    """Return the lines that the workflow says at the end about jobs on Slurm."""
    return [line for line in text.splitlines() if line.startswith("threedrs: Slurm: ")]
