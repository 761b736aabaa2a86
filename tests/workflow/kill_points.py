"""Where processes are killed: the jobs of the small demo, and moments in each.

A moment is told by the files that are there. Moments of a job stand in the order in which a job
that is killed at each of them, and started again, meets them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ANSWERS = "results/eval/3drs/scanrefer"


@dataclass(frozen=True)
class Point:
    """Where a process is killed: when ``reached`` first holds while the job runs.

    ``job`` names rule and wildcards, ``mark`` is a text that only this job's command or script
    holds; ``victim`` is the job's own process (``worker``) or ``snakemake``.
    """

    job: str
    mark: str
    victim: str
    when: str
    reached: Callable[[Path], bool]


def there(pattern: str) -> Callable[[Path], bool]:
    """Whether a file of this name is there."""
    return lambda folder: next(folder.glob(pattern), None) is not None


def lines(path: str, count: int) -> Callable[[Path], bool]:
    """Whether the file has that many lines."""

    def enough(folder: Path) -> bool:
        try:
            return (folder / path).read_bytes().count(b"\n") >= count
        except OSError:
            return False

    return enough


def at_once(folder: Path) -> bool:
    """As soon as the job's process is there."""
    return True


# job, mark, and the moments at which it is killed
STAGES: tuple[tuple[str, str, dict[str, Callable[[Path], bool]]], ...] = (
    (
        "demo_data",
        "results/demo/demo.json",
        {
            "start": at_once,
            "first scan written": there("results/demo/scannet/scans/*/*.sens"),
            "annotations being written": there("results/demo/benchmark/scanrefer/*.json"),
        },
    ),
    (
        "boxes train-000",
        "results/boxes/train-000.json",
        {"start": at_once, "result written": there("results/boxes/train-000.json")},
    ),
    (
        "build_scenes train-000",
        "results/scenes/shards/train-000.json",
        {
            "start": at_once,
            "first store half written": there("results/scenes/.scene0000_00.zarr.*.tmp"),
            "first store written": there("results/scenes/scene0000_00.zarr"),
            "manifest written": there("results/scenes/shards/train-000.json"),
        },
    ),
    (
        "extract_features vggt-tiny train-000",
        "results/features/vggt-tiny/train-000.zarr/manifest.json",
        {
            "start": at_once,
            "features half written": there("results/features/*/train-000.zarr/.scene*.tmp"),
            "features written": there("results/features/*/train-000.zarr/scene*"),
            "manifest written": there("results/features/*/train-000.zarr/manifest.json"),
        },
    ),
    (
        "convert_instructions scanrefer train",
        "results/instructions/scanrefer_train.jsonl",
        {"start": at_once, "records written": there("results/instructions/scanrefer_train.jsonl")},
    ),
    (
        "balance full",
        "results/instructions/mixes/full.jsonl",
        {
            "start": at_once,
            "mix written": there("results/instructions/mixes/full.jsonl"),
            "summary written": there("results/instructions/mixes/full.summary.json"),
        },
    ),
    (
        "train 3drs",
        "results/train/3drs/config.json",
        {
            "start": at_once,
            "step 1 logged": lines("results/train/3drs/checkpoints/log.jsonl", 1),
            "checkpoint half written": there("results/train/3drs/checkpoints/.step-*.tmp/*"),
            "step 3 logged": lines("results/train/3drs/checkpoints/log.jsonl", 3),
            "model half written": there("results/train/3drs/.model.*.tmp"),
            "model written": there("results/train/3drs/model"),
        },
    ),
    (
        "predict 3drs scanrefer",
        "results/eval/3drs/scanrefer/predictions.jsonl",
        {
            "start": at_once,
            "some answers written": lines(f"{ANSWERS}/predictions.partial.jsonl", 2),
            "predictions written": there(f"{ANSWERS}/predictions.jsonl"),
        },
    ),
    (
        "score 3drs scanrefer",
        "results/eval/3drs/scanrefer/metrics.json",
        {"start": at_once, "metrics written": there("results/eval/3drs/scanrefer/metrics.json")},
    ),
    (
        "aggregate",
        "results/report/summary.csv",
        {"start": at_once, "first table written": there("results/report/summary.*")},
    ),
    (
        "build_report",
        "results/report/index.html",
        {"start": at_once, "page written": there("results/report/index.html")},
    ),
)


# Target -> the stages that are killed on the way to it. After a killed job Snakemake goes on with
# what does not need it, so stages that do not follow from each other need a target each.
CHAINS = {
    "results/instructions/scanrefer_train.jsonl": ("demo_data", "boxes", "convert_instructions"),
    "results/instructions/mixes/full.jsonl": ("build_scenes", "balance"),
    "all": ("extract_features", "train", "predict", "score", "aggregate", "build_report"),
}


def point(job: str, when: str, victim: str) -> Point:
    """Return the point of a job and moment."""
    mark, moments = next((mark, moments) for name, mark, moments in STAGES if name == job)
    return Point(job, mark, victim, when, moments[when])


def points_of(stages: Sequence[str], victim: str) -> list[Point]:
    """Return the points of these stages for one victim."""
    return [
        point(job, when, victim)
        for job, _, moments in STAGES
        for when in moments
        if job.split()[0] in stages
    ]
