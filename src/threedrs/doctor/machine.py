"""Python, packages, GPU, attention kernels, Java, Slurm: has the machine what is needed?"""

import importlib.metadata
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from threedrs.config.load import resolve_run
from threedrs.doctor.finding import Finding, Setting, error, ok, warning
from threedrs.tasks.registry import find_task
from threedrs.workflow.processes import quick_imports, run_text

SINFO_SECONDS = 30


def check_python(setting: Setting) -> Iterator[Finding]:
    """Compare Python's version with ``requires-python``."""
    wanted = _project(setting.root).get("requires-python", "")
    version = platform.python_version()
    # A release candidate of a fitting Python fits, which packaging denies by default.
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield ok(version)
        return
    yield error(
        f"{version}, pyproject.toml asks for {wanted}", "install such a Python and run `make setup`"
    )


def check_packages(setting: Setting) -> Iterator[Finding]:
    """Compare the installed packages with pyproject.toml's ranges and with the lock."""
    project = _project(setting.root)
    if not project:
        file = setting.root / "pyproject.toml"
        yield warning(f"{file} is missing", "run threedrs doctor from the repository's folder")
        return
    needed = map(Requirement, project["dependencies"])
    ranges = {canonicalize_name(one.name): one.specifier for one in needed}
    lock = (setting.root / "requirements.lock").read_text(encoding="utf-8")
    outside, others = [], []
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", lock, re.MULTILINE):
        found, wanted = _installed(name), ranges.get(canonicalize_name(name), SpecifierSet())
        if wanted and (found is None or not wanted.contains(found, prereleases=True)):
            outside.append(f"{name} {found or 'missing'} (needs {wanted})")
        elif found != version:
            others.append(f"{name} {found or 'missing'} (locked: {version})")
    if outside:
        yield error("; ".join(outside), "run `make setup`")
    if others:
        remedy = "run `make setup` for the versions of requirements.lock"
        yield warning(f"not as tested: {'; '.join(others)}", remedy)
    if not outside and not others:
        yield ok("as in requirements.lock")


def _installed(name: str) -> str | None:
    try:
        # torch calls itself 2.12.0+cpu or +cu128: the build is not another version.
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _project(root: Path) -> dict[str, Any]:
    file = root / "pyproject.toml"
    if not file.is_file():
        return {}
    with file.open("rb") as stream:
        return tomllib.load(stream)["project"]


def check_gpu(setting: Setting) -> Iterator[Finding]:
    """Look for GPUs, which models beyond ``mini`` need here or on the nodes of a cluster."""
    with quick_imports():
        import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield ok(", ".join(names))
        return
    # A login node has no GPU, so a run that goes to Slurm is fine without one here.
    runs = [resolve_run(setting.config, run) for run in setting.config["runs"]]
    large = sorted({run["model"]["size"] for run in runs} - {"tiny", "mini"})
    if not large:
        yield ok("none here; models of this size run on the CPU")
        return
    message = f"none here; models of size {' and '.join(large)} need GPU nodes"
    remedy = "run with snakemake --profile slurm, or on a GPU machine"
    yield ok(message) if setting.slurm else warning(message, remedy)


def check_attention(setting: Setting) -> Iterator[Finding]:
    """Look for flash-attn, which ``model.attention: flash`` needs."""
    version = _installed("flash-attn")
    asking = [
        run
        for run in setting.config["runs"]
        if resolve_run(setting.config, run)["model"]["attention"] == "flash"
    ]
    if version or not asking:
        yield ok(version or "not installed; torch's own attention is used")
        return
    yield error(
        f"not installed; model.attention of {', '.join(asking)} asks for it",
        "pip install --no-build-isolation -e '.[flash-attn]', or model.attention: auto",
    )


def check_java(setting: Setting) -> Iterator[Finding]:
    """Look for Java, which METEOR needs."""
    found = shutil.which("java")
    asked = map(find_task, setting.config["eval"]["benchmarks"])
    captions = [task.name for task in asked if "meteor" in task.metrics]
    if found or not captions:
        yield ok(found or "not here; no benchmark needs it")
        return
    yield warning(
        f"missing: METEOR of {' and '.join(captions)} is reported as unavailable",
        "install a Java runtime (Debian: default-jre-headless)",
    )


def check_slurm(setting: Setting) -> Iterator[Finding]:
    """Look for Slurm's commands and partitions, which only a run with ``--slurm`` needs."""
    if missing := [name for name in ("sbatch", "squeue", "sinfo") if not shutil.which(name)]:
        message = f"{', '.join(missing)} not here"
        if setting.slurm:
            yield error(message, "run on a login node of the cluster")
        else:
            yield ok(f"{message}; --profile slurm needs them")
        return
    try:
        answer = run_text("sinfo", "--noheader", "--format=%P", seconds=SINFO_SECONDS)
        partitions, said = answer.stdout.split(), answer.stderr
    except (OSError, subprocess.TimeoutExpired) as problem:
        partitions, said = [], str(problem)
    if partitions:
        yield ok(f"partitions {', '.join(partitions)}")
        return
    yield (error if setting.slurm else warning)(
        f"sinfo names no partition: {' '.join(said.split())[:200] or 'no answer'}",
        "start slurmctld, or run without --profile slurm",
    )
