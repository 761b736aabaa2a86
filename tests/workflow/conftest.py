"""A checkout of the workflow in a temporary folder, and Snakemake to run in it."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from scheduling import pytest_xdist_make_scheduler  # noqa: F401  # a hook of pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "config", "envs", "profiles", "slurm", "src", "workflow")
SMALL = ROOT / "tests" / "workflow" / "small.yaml"
# What a job says of itself (`message:` in workflow/rules) -> its rule; groups are its wildcards.
MESSAGES = {
    r"Generating the demo data: .*": "demo_data",
    r"Boxes of shard (\S+)": "boxes",
    r"Scene stores of shard (\S+)": "build_scenes",
    r"Store of scene (\S+)": "restore_store",
    r"Usable scenes of split (\S+)": "check_scenes",
    r"Limit of bad scenes of split (\S+)": "check_limit",
    r"Facts and pictures of shard (\S+)": "scene_facts",
    r"Scene report": "scene_report",
    r"Features of (\S+) for shard (\S+)": "extract_features",
    r"Records of (\S+), (\S+)": "convert_instructions",
    r"Training mix (\S+)": "balance",
    r"Settings of run (\S+)": "run_config",
    r"Training run (\S+)": "train",
    r"Predictions of (\S+) on (\S+)": "predict",
    r"Scores of (\S+) on (\S+)": "score",
    r"Summary of .*": "aggregate",
    r"Report": "build_report",
}


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
        return counted_jobs(said.stdout)

    def planned(self, *arguments: str, config: Path | None = SMALL) -> set[str]:
        """Return the jobs that a dry run of ``all`` would run, e.g. ``predict baseline scanqa``.

        Each is a rule and its wildcards; the target ``all`` itself is not named.
        """
        said = self.snakemake("all", "-n", *arguments, config=config)
        assert said.returncode == 0, said.stdout
        jobs = [named(text) for text in re.findall(r"^Job \d+: (.*)$", said.stdout, re.MULTILINE)]
        counts = counted_jobs(said.stdout)
        counts.pop("all", None)
        assert Counter(job.split()[0] for job in jobs) == counts, said.stdout
        return set(jobs)


def named(message: str) -> str:
    """Return rule and wildcards of the job that says ``message``."""
    for pattern, rule in MESSAGES.items():
        found = re.fullmatch(pattern, message)
        if found:
            return " ".join([rule, *found.groups()])
    raise AssertionError(f"no rule says {message!r}")


def counted_jobs(output: str) -> dict[str, int]:
    """Return rule -> number of its jobs, from the table of a dry run."""
    jobs = {}
    for line in output.splitlines():
        parts = line.split()
        if len(parts) == 2 and parts[0].isidentifier() and parts[1].isdigit():
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
    """A checkout in which the whole small demo has been run once, by one worker for all.

    Nothing but dry runs is done in it, and nothing in it is changed.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, mark = shared / "finished-demo", shared / "finished-demo.complete"
    with (shared / "finished-demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            said = make_checkout(folder).snakemake("--cores", "2", "all")
            assert said.returncode == 0, said.stdout[-6000:]
            mark.touch()
    return Checkout(folder)


def copy_finished(finished: Checkout, folder: Path) -> Checkout:
    """Copy a finished checkout with all dates, less what a running Snakemake keeps to itself."""
    shutil.copytree(finished.folder, folder, ignore=_ignore_transient)
    return Checkout(folder)


def _ignore_transient(folder: str, names: list[str]) -> set[str]:
    if Path(folder).name == ".snakemake":
        return set(names) - {"metadata"}
    return {"__pycache__"} & set(names)
