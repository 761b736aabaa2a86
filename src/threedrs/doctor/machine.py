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

from threedrs.config.load import resolve_run
from threedrs.doctor.finding import Finding, Setting
from threedrs.tasks.registry import find_task

SINFO_SECONDS = 30


def check_python(setting: Setting) -> Iterator[Finding]:
    """Compare Python's version with ``requires-python``."""
    wanted = _project(setting.root).get("requires-python", "")
    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield Finding(check="python", status="ok", message=version)
        return
    yield Finding(
        check="python",
        status="error",
        message=f"{version}, pyproject.toml asks for {wanted}",
        remedy="install such a Python and run `make setup`",
    )


def check_packages(setting: Setting) -> Iterator[Finding]:
    """Compare the installed packages with pyproject.toml's ranges and with the lock."""
    project = _project(setting.root)
    if not project:
        yield Finding(
            check="packages",
            status="warning",
            message=f"{setting.root / 'pyproject.toml'} is missing",
            remedy="run threedrs doctor from the repository's folder",
        )
        return
    outside, others = [], []
    for text in project["dependencies"]:
        wanted = Requirement(text)
        found = _installed(wanted.name)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            outside.append(
                f"{wanted.name} {found or 'missing'} (needs {wanted.specifier or 'any'})"
            )
    lock = setting.root / "requirements.lock"
    if lock.is_file():
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", lock.read_text(), re.MULTILINE):
            found = _installed(name)
            if found != version and not any(line.startswith(f"{name} ") for line in outside):
                others.append(f"{name} {found or 'missing'} (locked: {version})")
    if outside:
        yield Finding(
            check="packages",
            status="error",
            message="; ".join(outside),
            remedy="run `make setup`",
        )
    if others:
        yield Finding(
            check="packages",
            status="warning",
            message=f"not as tested: {'; '.join(others)}",
            remedy="run `make setup` for the versions of requirements.lock",
        )
    if not outside and not others:
        yield Finding(check="packages", status="ok", message="as in requirements.lock")


def _installed(name: str) -> str | None:
    try:
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
    """Look for GPUs, which models beyond ``tiny`` need here or on the nodes of a cluster."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding(check="gpu", status="ok", message=", ".join(names))
        return
    runs = [resolve_run(setting.config, run) for run in setting.config["runs"]]
    large = sorted({run["model"]["size"] for run in runs} - {"tiny"})
    if not large:
        yield Finding(check="gpu", status="ok", message="none here; tiny models run on the CPU")
        return
    yield Finding(
        check="gpu",
        status="ok" if setting.slurm else "warning",
        message=f"none here; models of size {' and '.join(large)} need GPU nodes",
        remedy="" if setting.slurm else "run with snakemake --profile slurm, or on a GPU machine",
    )


def check_attention(setting: Setting) -> Iterator[Finding]:
    """Look for flash-attn, which ``model.attention: flash`` needs."""
    try:
        version = importlib.metadata.version("flash-attn")
        yield Finding(check="flash-attn", status="ok", message=version)
        return
    except importlib.metadata.PackageNotFoundError:
        pass
    asking = [
        run
        for run in setting.config["runs"]
        if resolve_run(setting.config, run)["model"]["attention"] == "flash"
    ]
    if not asking:
        yield Finding(
            check="flash-attn", status="ok", message="not installed; torch's own attention is used"
        )
        return
    yield Finding(
        check="flash-attn",
        status="error",
        message=f"not installed; model.attention of {', '.join(asking)} asks for it",
        remedy="pip install --no-build-isolation -e '.[flash-attn]', or model.attention: auto",
    )


def check_java(setting: Setting) -> Iterator[Finding]:
    """Look for Java, which METEOR needs."""
    found = shutil.which("java")
    asked = map(find_task, setting.config["eval"]["benchmarks"])
    captions = [task.name for task in asked if "meteor" in task.metrics]
    if found or not captions:
        yield Finding(check="java", status="ok", message=found or "not here; no benchmark needs it")
        return
    yield Finding(
        check="java",
        status="warning",
        message=f"missing: METEOR of {' and '.join(captions)} is reported as unavailable",
        remedy="install a Java runtime (Debian: default-jre-headless)",
    )


def check_slurm(setting: Setting) -> Iterator[Finding]:
    """Look for Slurm's commands and partitions, which only a run with ``--slurm`` needs."""
    missing = [name for name in ("sbatch", "squeue", "sinfo") if not shutil.which(name)]
    if missing:
        yield Finding(
            check="slurm",
            status="error" if setting.slurm else "ok",
            message=f"{', '.join(missing)} not here"
            + ("" if setting.slurm else "; --profile slurm needs them"),
            remedy="run on a login node of the cluster" if setting.slurm else "",
        )
        return
    try:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%P"],
            capture_output=True,
            text=True,
            timeout=SINFO_SECONDS,
        )
        partitions, said = answer.stdout.split(), answer.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        partitions, said = [], str(error)
    if partitions:
        yield Finding(check="slurm", status="ok", message=f"partitions {', '.join(partitions)}")
        return
    yield Finding(
        check="slurm",
        status="error" if setting.slurm else "warning",
        message=f"sinfo names no partition: {' '.join(said.split())[:200] or 'no answer'}",
        remedy="start slurmctld, or run without --profile slurm",
    )
