"""The disk of results/: space and inodes against what is free, and whether renames are whole.

Sizes follow from array shapes; they were compared with what full runs wrote (benchmarks/RESULTS.md
has those). Whole scenes, shards and models that are there already are not counted.

Outputs appear whole because a synced file is renamed over the old one, and Snakemake tells stale
files by their times. So a file of a few bytes is written, synced, renamed and removed again.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from threedrs.config.load import Config, data_layout, resolve_run
from threedrs.demo.write import demo_scenes
from threedrs.doctor.finding import Finding, Setting, error, ok, warning
from threedrs.errors import ThreedrsError
from threedrs.inputs.required_files import scene_splits, trained_runs
from threedrs.io.files import sync
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
FEW_INODES = 0.05  # share of all inodes; with fewer free ones the file system is nearly full
MOST_SKEW = 2.0  # seconds; Snakemake's own tolerance of file times is a few
# Names of file systems in /proc/mounts on which a rename is a copy, or others see it late.
NOT_ATOMIC = ("cifs", "smb3", "vfat", "exfat", "ntfs", "ntfs3", "9p", "fuse.s3fs", "fuse.rclone")
NOT_ATOMIC_PREFIXES = ("fuse.sshfs", "fuse.gcsfuse", "fuse.goofys", "fuse.mount-s3")


@dataclass(frozen=True)
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
    wanted = scene_splits(config)
    generated = demo_scenes(demo["scenes"]) if demo else None
    splits = {split: generated[split] if generated else layout.scenes(split) for split in wanted}
    frames = config["frames"]["count"]
    scenes = [scene for members in splits.values() for scene in members]
    open_scenes = [s for s in scenes if not (results / "scenes" / f"{s}.zarr/zarr.json").exists()]
    runs = {run: resolve_run(config, run) for run in trained_runs(config)}
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
            checkpoints = checkpoint_bytes(run) * (run["execution"]["keep"] + 1)
            models += int(model_bytes(run) + checkpoints)
    texts = TEXT_BYTES * len(scenes)
    stores = len(open_scenes)
    return [
        StageNeed("scenes", stores * frames * FRAME_BYTES, stores * STORE_INODES),
        StageNeed("features", feature_size, features * FEATURE_INODES),
        StageNeed("instructions", texts // 2, 100),
        StageNeed("models", models, len(runs) * RUN_INODES),
        StageNeed("scores and report", texts // 2, len(config["runs"]) * 50),
    ]


def check_disk(setting: Setting) -> Iterator[Finding]:
    """Say of each stage whether the disk still has room when its turn comes."""
    try:
        needs = stage_needs(setting.config, setting.results)
    except ThreedrsError as problem:
        yield error(f"what is needed is not known: {problem}", "put the scene list there")
        return
    free = shutil.disk_usage(setting.written_folder).free
    by_then = 0
    for need in needs:
        by_then += need.size
        message = (
            f"{need.stage}: about {need.size / GIGABYTE:.1f} GB to write, "
            f"{by_then / GIGABYTE:.1f} GB by then; {free / GIGABYTE:.1f} GB free in results/"
        )
        remedy = "free space, or make results/ a link to a larger disk"
        yield ok(message) if by_then < free else error(message, remedy)


def check_inodes(setting: Setting) -> Iterator[Finding]:
    """Say whether the file system has room for the files to come, if it counts files at all."""
    state = os.statvfs(setting.written_folder)
    if not state.f_files:
        yield ok("not limited")
        return
    try:
        needed = sum(need.inodes for need in stage_needs(setting.config, setting.results))
    except ThreedrsError:
        needed = 0  # check_disk says why
    text = f"about {needed:,} files and folders to make, {state.f_favail:,} free in results/"
    if state.f_favail <= needed:
        yield error(text, "remove files there, or make results/ a link to another file system")
    elif state.f_favail < FEW_INODES * state.f_files:
        few = f"{text}: less than {FEW_INODES:.0%} of all are left"
        yield warning(few, "remove files there before others use them up")
    else:
        yield ok(text)


def check_file_system(setting: Setting) -> Iterator[Finding]:
    """Write, sync and rename a file in results/, and compare its time with the clock."""
    folder = setting.written_folder
    old, new = (folder / f".doctor-{os.getpid()}-{name}.tmp" for name in ("old", "new"))
    step = "written"
    try:
        old.write_bytes(b"old")
        before = time.time()
        new.write_bytes(b"new")
        after, changed = time.time(), new.stat().st_mtime
        step = "synced to disk"
        sync(new)
        sync(folder)
        step = "renamed over another"
        new.replace(old)
        if old.read_bytes() != b"new" or new.exists():
            raise OSError(0, "the old file is still there")
    except OSError as problem:
        yield error(
            f"{folder}: a file cannot be {step} ({problem.strerror})",
            "make results/ a link to a folder of yours on a local or cluster file system",
        )
        return
    finally:
        for file in (old, new):
            with suppress(OSError):  # on a read-only file system even if it is not there
                file.unlink()
    yield from _check_kind(folder)
    skew = changed - min(max(changed, before), after)
    clock = ok("agrees with the file system of results/")
    if abs(skew) > MOST_SKEW:
        clock = warning(
            f"files in {folder} get times {abs(skew):.0f} s {'after' if skew > 0 else 'before'} "
            "this machine's clock: finished stages may run again, or stale ones not",
            "set the clocks of this machine and of the file server (NTP)",
        )
    yield replace(clock, check="clock")


def _check_kind(folder: Path) -> Iterator[Finding]:
    kind = mount_kind(folder)
    if kind in NOT_ATOMIC or kind.startswith(NOT_ATOMIC_PREFIXES):
        yield warning(
            f"{folder} is on {kind}, where a rename may not be atomic: a killed job can leave half "
            "a file",
            "make results/ a link to a folder on a local or cluster file system",
        )
    else:
        yield ok(f"sync and rename work{f' on {kind}' if kind else ''}")


def mount_kind(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the kind of the file system of ``folder``, or an empty string if it is not known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place, best, kind = folder.resolve(), -1, ""
    for line in lines:
        _, point, found, *_ = line.split()
        point = point.replace("\\040", " ")
        # Where several are mounted in the same place, the last one shows.
        if place.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found
    return kind
