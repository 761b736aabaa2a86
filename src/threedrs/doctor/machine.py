"""GPU, attention kernels, Java, Slurm: what the machine has of what the configuration uses."""

import importlib.metadata
import shutil
import subprocess
from collections.abc import Iterator

from threedrs.config.load import resolve_run
from threedrs.doctor.finding import Finding, Setting
from threedrs.tasks.registry import find_task

SINFO_SECONDS = 30


def check_gpu(setting: Setting) -> Iterator[Finding]:
    """Look for GPUs; a model beyond ``tiny`` needs one, here or on the cluster's nodes."""
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
    """Look for Slurm's commands and partitions; without Slurm only those who ask need them."""
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
