"""A checkout of the workflow in a temporary folder, and Snakemake to run in it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "config", "envs", "profiles", "slurm", "src", "workflow")
SMALL = ROOT / "tests" / "workflow" / "small.yaml"


@dataclass(frozen=True)
class Checkout:
    """A copy of the workflow's files, where results may be made."""

    folder: Path

    def snakemake(
        self, *arguments: str, config: Path | None = SMALL, seconds: int = 800
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here and return what it said (both streams in ``stdout``)."""
        command = [sys.executable, "-m", "snakemake", *arguments]
        if config is not None:
            command += ["--configfile", str(config)]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SLURM_")
        }
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment | {"PYTHONPATH": str(self.folder / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def planned_jobs(self, *arguments: str, config: Path | None = SMALL) -> dict[str, int]:
        """Return how many jobs of each rule a dry run of ``all`` would run."""
        said = self.snakemake("all", "-n", "-q", "rules", *arguments, config=config)
        assert said.returncode == 0, said.stdout
        jobs = {}
        for line in said.stdout.splitlines():
            parts = line.split()
            if len(parts) == 2 and parts[1].isdigit():
                jobs[parts[0]] = int(parts[1])
        jobs.pop("total", None)
        return jobs


def make_checkout(folder: Path) -> Checkout:
    """Copy the workflow's files to ``folder``."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        if source.is_dir():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return Checkout(folder)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh checkout without results."""
    return make_checkout(tmp_path / "checkout")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the whole small demo has been run once."""
    done = make_checkout(tmp_path_factory.mktemp("demo") / "checkout")
    said = done.snakemake("--cores", "2", "all")
    assert said.returncode == 0, said.stdout[-6000:]
    return done
