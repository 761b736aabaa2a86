"""Checks of the machine and the data before a run costs time: one line each, with the remedy."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from threedrs.config import Config, data_layout, resolve_run
from threedrs.demo.write import demo_scenes
from threedrs.download import downloads
from threedrs.errors import ThreedrsError
from threedrs.inputs import Ready, missing_inputs

GIGABYTE = 10**9
# Bytes on disk, by array shapes: rgb + depth + jpeg + masks of one frame; 14 x 14 x 2048 float16.
FRAME_BYTES = 384 * 384 * (3 + 2) + 250_000 + 20_000
FEATURE_BYTES = 14 * 14 * 2048 * 2
# Exported bfloat16 weights, and one checkpoint with float32 master weights and two moments.
MODEL_BYTES = {"tiny": (5_000_000, 20_000_000), "7b": (16 * GIGABYTE, 107 * GIGABYTE)}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's outcome. ``warning``: the run works, but slower or without a part."""

    check: str
    status: Literal["ok", "warning", "error"]
    message: str


def examine(config: Config, root: Path) -> list[Finding]:
    """Return the findings for running ``config`` from the repository at ``root``."""
    checks: tuple[Callable[[Config, Path], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _gpu,
        _attention,
        _java,
        _slurm,
        _disk,
        _inputs,
        _licences,
    )
    return [finding for check in checks for finding in check(config, root)]


def _python(config: Config, root: Path) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding(
        check="python",
        status="ok" if good else "error",
        message=version if good else f"{version}; use Python 3.11 or 3.12",
    )


def _packages(config: Config, root: Path) -> Iterator[Finding]:
    lock = root / "requirements.lock"
    if not lock.is_file():
        yield Finding(
            check="packages",
            status="warning",
            message=f"{lock} is missing; run from the repository",
        )
        return
    wrong = []
    for name, wanted in re.findall(r"^([\w.-]+)==(\S+)$", lock.read_text(), re.MULTILINE):
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append(f"{name} {found} (locked: {wanted})")
    yield Finding(
        check="packages",
        status="warning" if wrong else "ok",
        message=f"{'; '.join(wrong)}: run `make setup`" if wrong else "as in requirements.lock",
    )


def _gpu(config: Config, root: Path) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding(check="gpu", status="ok", message=", ".join(names))
        return
    large = any(resolve_run(config, run)["model"]["size"] != "tiny" for run in config["runs"])
    yield Finding(
        check="gpu",
        status="warning" if large else "ok",
        message="none here"
        + (
            "; the 7b model needs GPU nodes (snakemake --profile slurm)"
            if large
            else "; tiny models run on the CPU"
        ),
    )


def _attention(config: Config, root: Path) -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("flash-attn")
    except importlib.metadata.PackageNotFoundError:
        asked = any(
            resolve_run(config, run)["model"]["attention"] == "flash" for run in config["runs"]
        )
        yield Finding(
            check="flash-attn",
            status="error" if asked else "ok",
            message="not installed; "
            + (
                "model.attention asks for it: pip install --no-build-isolation -e '.[flash-attn]'"
                if asked
                else "torch's own attention is used"
            ),
        )
        return
    yield Finding(check="flash-attn", status="ok", message=version)


def _java(config: Config, root: Path) -> Iterator[Finding]:
    found = shutil.which("java")
    yield Finding(
        check="java",
        status="ok" if found else "warning",
        message=found or "missing: METEOR is reported as unavailable; install default-jre-headless",
    )


def _slurm(config: Config, root: Path) -> Iterator[Finding]:
    if not shutil.which("sbatch"):
        yield Finding(check="slurm", status="ok", message="not here; --profile slurm needs sbatch")
        return
    answer = subprocess.run(["sinfo", "--noheader", "--format=%P"], capture_output=True, text=True)
    partitions = answer.stdout.split()
    yield Finding(
        check="slurm",
        status="ok" if partitions else "warning",
        message=f"partitions {', '.join(partitions)}"
        if partitions
        else f"sinfo names no partition: {answer.stderr.strip()[:200]}",
    )


def _disk(config: Config, root: Path) -> Iterator[Finding]:
    try:
        needed = disk_needed(config)
    except ThreedrsError as error:
        yield Finding(check="disk", status="error", message=str(error))
        return
    free = shutil.disk_usage(root).free
    text = f"about {needed / GIGABYTE:.1f} GB needed under results/, {free / GIGABYTE:.1f} GB free"
    yield Finding(
        check="disk",
        status="ok" if needed < free else "error",
        message=text if needed < free else f"{text}: make results/ a link to a larger disk",
    )


def disk_needed(config: Config) -> int:
    """Return the bytes that a whole run writes, from array shapes and the number of scenes.

    Raises:
        ThreedrsError: the scene lists cannot be read.
    """
    layout, demo = data_layout(config), config["data"]["demo"]
    splits = (
        demo_scenes(demo["scenes"])
        if demo
        else {split: layout.scenes(split) for split in ("train", "val")}
    )
    train, val = len(splits["train"]), len(splits["val"])
    frames = config["frames"]["count"]
    runs = [resolve_run(config, run) for run in config["runs"]]
    teachers = {run["teacher"]["name"] for run in runs} - {"none"}
    models = 0
    for run in runs:
        export, checkpoint = MODEL_BYTES[run["model"]["size"]]
        models += export + checkpoint * run["train"]["keep"]
    scenes = (train + val) * frames * FRAME_BYTES
    return scenes + train * frames * FEATURE_BYTES * len(teachers) + models


def _inputs(config: Config, root: Path) -> Iterator[Finding]:
    if config["data"]["demo"]:
        yield Finding(check="data", status="ok", message="demo data, generated by the workflow")
        return
    try:
        missing_inputs(
            data_layout(config),
            config["eval"]["benchmarks"],
            [path for entry in downloads(config) for path in entry.paths()],
            Ready.from_config(config),
        )
    except ThreedrsError as error:
        for line in str(error).splitlines():
            yield Finding(check="data", status="error", message=line)
        return
    unreadable = [
        path for path in [data_layout(config).labels_file] if not os.access(path, os.R_OK)
    ]
    yield Finding(
        check="data",
        status="error" if unreadable else "ok",
        message=f"{unreadable[0]}: cannot be read" if unreadable else "every input file is there",
    )


def _licences(config: Config, root: Path) -> Iterator[Finding]:
    if config["data"]["demo"]:
        yield Finding(check="licences", status="ok", message="none to accept for the demo data")
        return
    yield Finding(
        check="licences",
        status="ok",
        message="accept those of ScanNet, the benchmarks, VGGT-1B, the base model (README.md)",
    )


def as_json(findings: list[Finding]) -> list[dict[str, Any]]:
    """Return the findings as JSON values."""
    return [{"check": f.check, "status": f.status, "message": f.message} for f in findings]
