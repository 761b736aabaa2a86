"""The disk of results/: space against what is free, whether files can be written, and the clock.

Sizes follow from array shapes; they were compared with what full runs wrote (benchmarks/RESULTS.md
has those). Whole scenes, shards and models that are there already are not counted.
"""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from threedrs.config.load import Config, data_layout, resolve_run
from threedrs.demo.write import demo_scenes
from threedrs.doctor.finding import Finding, Setting, error, ok, warning
from threedrs.errors import ThreedrsError
from threedrs.inputs.required_files import scene_splits, trained_runs
from threedrs.io.files import write_text
from threedrs.planning import disk

# Records, mixes, predictions, logs and pages of a scene, far on the large side.
TEXT_BYTES = 2_000_000
MOST_SKEW = 2.0  # seconds; Snakemake's own tolerance of file times is a few


def stage_needs(config: Config, results: Path) -> dict[str, int]:
    """Return stage -> the bytes that it will still write, in the order of the stages.

    Raises:
        ThreedrsError: the scene lists cannot be read.
    """
    layout, demo = data_layout(config), config["data"]["demo"]
    wanted = scene_splits(config)
    generated = demo_scenes(demo["scenes"]) if demo else None
    splits = {split: generated[split] if generated else layout.scenes(split) for split in wanted}
    frames = config["frames"]["count"]
    scenes = [scene for members in splits.values() for scene in members]
    open_scenes = [s for s in scenes if not (results / "scenes" / f"{s}.zarr/zarr.json").exists()]
    runs = {run: resolve_run(config, run) for run in trained_runs(config)}
    features = 0
    for teacher in {run["teacher"]["name"] for run in runs.values()} - {"none"}:
        done = len(list((results / "features" / teacher).glob("*.zarr/scene*")))
        due = max(0, len(splits["train"]) - done)
        features += due * frames * disk.feature_bytes(config["teacher"], disk.channels_of(teacher))
    models = 0
    for name, run in runs.items():
        if not (results / "train" / name / "train.json").exists():
            # The newest is whole before the oldest goes.
            checkpoints = disk.checkpoint_bytes(run) * (run["execution"]["keep"] + 1)
            models += int(disk.model_bytes(run) + checkpoints)
    texts = TEXT_BYTES * len(scenes)
    return {
        "scenes": len(open_scenes) * frames * disk.FRAME_BYTES,
        "features": features,
        "instructions": texts // 2,
        "models": models,
        "scores and report": texts // 2,
    }


def check_disk(setting: Setting) -> Iterator[Finding]:
    """Say of each stage whether the disk still has room when its turn comes."""
    try:
        needs = stage_needs(setting.config, setting.results)
    except ThreedrsError as problem:
        yield error("what is needed is not known", str(problem))
        return
    free = shutil.disk_usage(setting.written_folder).free
    by_then = 0
    for stage, size in needs.items():
        by_then += size
        message = (
            f"{stage}: about {size / disk.GIGABYTE:.1f} GB to write, {by_then / disk.GIGABYTE:.1f} "
            f"GB by then; {free / disk.GIGABYTE:.1f} GB free in results/"
        )
        remedy = "free space, or make results/ a link to a larger disk"
        yield ok(message) if by_then < free else error(message, remedy)


def check_file_system(setting: Setting) -> Iterator[Finding]:
    """Write a file in results/ as every stage does, and compare its time with the clock."""
    folder = setting.written_folder
    probe = folder / f".doctor-{os.getpid()}"
    before = time.time()
    try:
        write_text(probe, "")
        changed = probe.stat().st_mtime
        probe.unlink()
    except OSError as problem:
        yield error(
            f"{folder}: a file cannot be written, synced and renamed ({problem.strerror})",
            "make results/ a link to a folder of yours on a local or cluster file system",
        )
        return
    yield ok("files can be written, synced and renamed")
    # Snakemake tells stale files by their times.
    skew = changed - min(max(changed, before), time.time())
    clock = ok("agrees with the file system of results/")
    if abs(skew) > MOST_SKEW:
        clock = warning(
            f"files in {folder} get times {abs(skew):.0f} s {'after' if skew > 0 else 'before'} "
            "this machine's clock: finished stages may run again, or stale ones not",
            "set the clocks of this machine and of the file server (NTP)",
        )
    yield replace(clock, check="clock")
