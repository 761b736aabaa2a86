"""Jobs that follow a stale one, and runs with what they leave, for the tests of what reruns."""

from collections.abc import Iterable
from pathlib import Path

from conftest import Checkout

RUNS = ("3drs", "baseline")
EVALUATED = {
    "scanrefer": "val",
    "multi3drefer": "val",
    "scan2cap": "val",
    "scanqa": "val",
    "sqa3d": "test",
}
SHARDS = ("train-000", "val-000")  # scenes 0 and 1; scene 2
TEACHER = "vggt-tiny"

REPORTS = {"aggregate", "build_report"}
MIX = {"balance full"}
SETTINGS = {f"run_config {run}" for run in RUNS}
BOXES = {f"boxes {shard}" for shard in SHARDS}
CONVERSIONS = {
    f"convert_instructions {name} {part}"
    for name, split in EVALUATED.items()
    for part in ("train", split)
}


def scenes(*shards: str) -> set[str]:
    """The jobs on scenes where these shards are stale."""
    splits = {shard.split("-")[0] for shard in shards}
    jobs = {f"{rule} {shard}" for rule in ("build_scenes", "scene_facts") for shard in shards}
    checks = {f"{rule} {split}" for rule in ("check_scenes", "check_limit") for split in splits}
    return jobs | checks | {"scene_report"}


def features(teacher: str = TEACHER) -> set[str]:
    """The jobs of a teacher: each shard of features has one scene, both of train-000."""
    return {f"extract_features {teacher} train-00{shard}" for shard in (0, 1)}


def scored(runs: Iterable[str] = RUNS, benchmarks: Iterable[str] = EVALUATED) -> set[str]:
    """The jobs from scoring on."""
    return {f"score {run} {name}" for run in runs for name in benchmarks} | REPORTS


def predicted(runs: Iterable[str] = RUNS, benchmarks: Iterable[str] = EVALUATED) -> set[str]:
    """The jobs from prediction on."""
    jobs = {f"predict {run} {name}" for run in runs for name in benchmarks}
    return jobs | scored(runs, benchmarks)


def trained(*runs: str) -> set[str]:
    """The jobs from training on."""
    return {f"train {run}" for run in runs} | predicted(runs)


FROM_TRAINING = trained(*RUNS)
FROM_SCENES = scenes(*SHARDS) | features() | MIX | FROM_TRAINING


def really_run(checkout: Checkout, *targets: str) -> None:
    said = checkout.snakemake("--cores", "2", *targets)
    assert said.returncode == 0, said.stdout[-4000:]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Path -> bytes and date, of all files."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
