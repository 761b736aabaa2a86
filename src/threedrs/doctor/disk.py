"""Disk space and inodes: what each stage will still write, against what is free.

Sizes follow from array shapes; they were compared with what full runs wrote (benchmarks/RESULTS.md
has those). Of results that are there already, whole scenes, shards and models are counted off.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from threedrs.config.load import Config, data_layout, resolve_run
from threedrs.demo.write import demo_scenes
from threedrs.doctor.finding import Finding, Setting
from threedrs.errors import ThreedrsError
from threedrs.planning.disk import (
    FRAME_BYTES,
    GIGABYTE,
    channels_of,
    checkpoint_bytes,
    feature_bytes,
    model_bytes,
)

# Records, mixes, predictions, logs and pages of a scene, far on the large side.
TEXT_BYTES = 2_000_000
# Files and folders of a scene store, a scene's features, and a run beside its checkpoints.
STORE_INODES, FEATURE_INODES, RUN_INODES = 110, 12, 300
FEW_INODES = 0.05  # of all: below it the file system is called nearly full


@dataclass(frozen=True, kw_only=True)
class StageNeed:
    """What a stage will still write: bytes, and files and folders."""

    stage: str
    size: int
    inodes: int


def stage_needs(config: Config, results: Path) -> list[StageNeed]:
    """Return what each stage will still write, in the order of the stages.

    Raises:
        ThreedrsError: the scene lists cannot be read.
    """
    layout, demo = data_layout(config), config["data"]["demo"]
    splits = (
        demo_scenes(demo["scenes"])
        if demo
        else {split: layout.scenes(split) for split in ("train", "val")}
    )
    frames = config["frames"]["count"]
    scenes = [scene for split in ("train", "val") for scene in splits[split]]
    open_scenes = [s for s in scenes if not (results / "scenes" / f"{s}.zarr/zarr.json").exists()]
    runs = {run: resolve_run(config, run) for run in config["runs"]}
    features, feature_size = 0, 0
    for teacher in {run["teacher"]["name"] for run in runs.values()} - {"none"}:
        done = len(list((results / "features" / teacher).glob("*.zarr/scene*")))
        due = max(0, len(splits["train"]) - done)
        features += due
        feature_size += due * frames * feature_bytes(config["teacher"], channels_of(teacher))
    models = 0
    for name, run in runs.items():
        if not (results / "train" / name / "train.json").exists():
            # The newest is whole before the oldest goes.
            checkpoints = checkpoint_bytes(run) * (run["train"]["keep"] + 1)
            models += int(model_bytes(run) + checkpoints)
    texts = TEXT_BYTES * len(scenes)
    return [
        StageNeed(
            stage="scenes",
            size=len(open_scenes) * frames * FRAME_BYTES,
            inodes=len(open_scenes) * STORE_INODES,
        ),
        StageNeed(
            stage="features",
            size=feature_size,
            inodes=features * FEATURE_INODES,
        ),
        StageNeed(stage="instructions", size=texts // 2, inodes=100),
        StageNeed(stage="models", size=models, inodes=len(runs) * RUN_INODES),
        StageNeed(stage="scores and report", size=texts // 2, inodes=len(runs) * 50),
    ]


def check_disk(setting: Setting) -> Iterator[Finding]:
    """Say of each stage whether the disk still has room when its turn comes."""
    try:
        needs = stage_needs(setting.config, setting.results)
    except ThreedrsError as error:
        yield Finding(
            check="disk",
            status="error",
            message=f"what is needed is not known: {error}",
            remedy="put the scene list there",
        )
        return
    free = shutil.disk_usage(setting.written_folder).free
    by_then = 0
    for need in needs:
        by_then += need.size
        fits = by_then < free
        yield Finding(
            check="disk",
            status="ok" if fits else "error",
            message=f"{need.stage}: about {need.size / GIGABYTE:.1f} GB to write, "
            f"{by_then / GIGABYTE:.1f} GB by then; {free / GIGABYTE:.1f} GB free in results/",
            remedy="" if fits else "free space, or make results/ a link to a larger disk",
        )


def check_inodes(setting: Setting) -> Iterator[Finding]:
    """Say whether the file system has room for as many files; some do not count them."""
    state = os.statvfs(setting.written_folder)
    if not state.f_files:
        yield Finding(check="inodes", status="ok", message="not limited")
        return
    try:
        needed = sum(need.inodes for need in stage_needs(setting.config, setting.results))
    except ThreedrsError:
        needed = 0  # check_disk says why
    text = f"about {needed:,} files and folders to make, {state.f_favail:,} free in results/"
    if state.f_favail <= needed:
        yield Finding(
            check="inodes",
            status="error",
            message=text,
            remedy="remove files there, or make results/ a link to another file system",
        )
    elif state.f_favail < FEW_INODES * state.f_files:
        yield Finding(
            check="inodes",
            status="warning",
            message=f"{text}: less than {FEW_INODES:.0%} of all are left",
            remedy="remove files there before others use them up",
        )
    else:
        yield Finding(check="inodes", status="ok", message=text)
