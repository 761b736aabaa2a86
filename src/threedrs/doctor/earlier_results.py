"""Can this version read the results of earlier runs? A quick look.

Of the kinds of file in `FILES` the format version is compared with the one that this version reads:
JSON files whole, lists of JSON lines by their first one. Stores are opened, of scene stores up to
`OPENED`, evenly spaced. `threedrs verify` reads all of them whole.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from threedrs.doctor.finding import Finding, Setting, error, ok, warning
from threedrs.errors import DataError, counted, problems_of
from threedrs.evaluation import aggregate, score
from threedrs.io.files import read_json, read_json_lines
from threedrs.models.backbones import config_json
from threedrs.scannet import boxes
from threedrs.scenes.store import SceneStore
from threedrs.tasks import prediction, record
from threedrs.teachers.feature_store import MANIFEST, FeatureStore
from threedrs.training.recipe import CHECKPOINT_FORMAT  # without torch, unlike the reader

OPENED = 100
CHECKPOINTS = "train/*/checkpoints/step-*/manifest.json"
# Files below results/, the format version that this version reads, and the target that makes them.
FILES = (
    ("boxes/*.json", boxes.FORMAT_VERSION, "scenes"),
    ("instructions/*_*.jsonl", record.FORMAT_VERSION, "instructions"),
    ("instructions/mixes/*.jsonl", record.FORMAT_VERSION, "instructions"),
    (CHECKPOINTS, CHECKPOINT_FORMAT, "models"),
    ("train/*/model/config.json", config_json.FORMAT_VERSION, "models"),
    ("eval/*/*/predictions.jsonl", prediction.FORMAT_VERSION, "scores"),
    ("eval/*/*/predictions.meta.json", prediction.FORMAT_VERSION, "scores"),
    ("eval/*/*/metrics.json", score.FORMAT_VERSION, "scores"),
    ("report/summary.json", aggregate.FORMAT_VERSION, "report"),
)


def check_versions(setting: Setting) -> Iterator[Finding]:
    """Name the results of another format version, or that cannot be read."""
    count, problems = 0, 0
    for pattern, expected, target in FILES:
        for file in sorted(setting.results.glob(pattern)):
            # Rejected rows are rows of the user's files, which carry no version of ours.
            if file.name.endswith(".rejected.jsonl"):
                continue
            count += 1
            message = _version_problem(file, expected)
            problems += bool(message)
            if message and pattern == CHECKPOINTS:  # training sets it aside and goes on without it
                remedy = "finish the run with the version that began it, or let it start afresh"
                yield warning(message, remedy)
            elif message:
                yield error(message, f"delete it and run `snakemake --cores all {target}`")
    if not problems:
        yield ok(
            f"{counted(count, 'file')} of earlier runs, of this version" if count else "none yet"
        )


def _version_problem(file: Path, expected: int) -> str:
    try:
        content: Any = (
            next(read_json_lines(file), None) if file.suffix == ".jsonl" else read_json(file)
        )
    except DataError as problem:
        return str(problem)
    if content is None:  # a list of nothing
        return ""
    if file.name == "config.json" and isinstance(content, dict):
        content = content.get("threedrs")
    found = content.get("format_version") if isinstance(content, dict) else None
    if found == expected:
        return ""
    return f"{file}: is of format version {found!r}, this version reads {expected}"


def check_stores(setting: Setting) -> Iterator[Finding]:
    """Open the stores that earlier runs left."""
    scenes = sorted((setting.results / "scenes").glob("scene*.zarr"))
    manifests = sorted((setting.results / "features").glob(f"*/*.zarr/{MANIFEST}"))
    # Thousands of stores on a slow file system would take minutes.
    looked_at = scenes[:: max(1, -(-len(scenes) // OPENED))]
    stores: list[tuple[Callable[[Path], object], Path]] = [
        *((SceneStore.open, store) for store in looked_at),
        *((FeatureStore.open, manifest.parent) for manifest in manifests),
    ]
    problems = [line for read, store in stores for line in problems_of(partial(read, store))]
    # The error of a store ends with its remedy, which has a column of its own here.
    yield from (error(*line.rsplit("; ", 1)) for line in problems)
    if not problems:
        text = f"{len(scenes)} scene stores and {len(manifests)} feature stores, which open"
        yield ok(text if stores else "none yet")
