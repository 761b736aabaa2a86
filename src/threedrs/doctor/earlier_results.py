"""Are the results of earlier runs whole, and can this version read them? A quick look.

Of the kinds of file in `FILES` the format version is compared with the one that this version reads:
JSON files whole, lists of JSON lines by their first one. Of the scene stores up to `OPENED` are
opened and up to `VERIFIED` compared with their checksums, evenly spaced. Of the feature stores
every manifest is read, and of up to `VERIFIED` scenes the features.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from threedrs.doctor.finding import Finding, Setting, error, ok, warning
from threedrs.errors import DataError, StoreError
from threedrs.evaluation import aggregate, score
from threedrs.io.files import read_json, read_json_lines
from threedrs.models.backbones import config_json
from threedrs.scannet import boxes
from threedrs.scenes.store import SceneStore
from threedrs.tasks import prediction, record
from threedrs.teachers.feature_store import MANIFEST, FeatureStore
from threedrs.training import checkpoints

T = TypeVar("T")
OPENED, VERIFIED = 100, 5
CHECKPOINTS = "train/*/checkpoints/step-*/manifest.json"
# Files below results/, the format version that this version reads, and the target that makes them.
FILES = (
    ("boxes/*.json", boxes.FORMAT_VERSION, "scenes"),
    ("instructions/*_*.jsonl", record.FORMAT_VERSION, "instructions"),
    ("instructions/mixes/*.jsonl", record.FORMAT_VERSION, "instructions"),
    (CHECKPOINTS, checkpoints.FORMAT_VERSION, "models"),
    ("train/*/model/config.json", config_json.FORMAT_VERSION, "models"),
    ("eval/*/*/predictions.jsonl", prediction.FORMAT_VERSION, "scores"),
    ("eval/*/*/predictions.meta.json", prediction.FORMAT_VERSION, "scores"),
    ("eval/*/*/metrics.json", score.FORMAT_VERSION, "scores"),
    ("report/summary.json", aggregate.FORMAT_VERSION, "report"),
)
LISTS_OF_OTHERS = (".rejected.jsonl",)


def check_versions(setting: Setting) -> Iterator[Finding]:
    """Name the results of another format version, or that cannot be read."""
    count, problems = 0, 0
    for pattern, expected, target in FILES:
        for file in sorted(setting.results.glob(pattern)):
            # Rejected rows are rows of the user's files, which carry no version of ours.
            if file.name.endswith(LISTS_OF_OTHERS):
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
        yield ok(f"{count} files of earlier runs, all of this version" if count else "none yet")


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
    """Open the stores that earlier runs left, and verify a sample of them."""
    scenes = sorted((setting.results / "scenes").glob("scene*.zarr"))
    manifests = sorted((setting.results / "features").glob(f"*/*.zarr/{MANIFEST}"))
    shards = [manifest.parent for manifest in manifests]
    members: list[tuple[Path, str]] = []
    problems = _problems(_spread(scenes, OPENED), SceneStore.open) or _problems(
        _spread(scenes, VERIFIED), lambda path: SceneStore.open(path).verify()
    )
    problems += _problems(
        shards,
        lambda shard: members.extend((shard, name) for name in FeatureStore.open(shard).scenes),
    )
    problems += _problems(
        _spread(members, VERIFIED), lambda member: FeatureStore.open(member[0]).features(member[1])
    )
    for problem in problems:
        # The error of a store ends with its remedy, which has a place of its own here.
        message, _, remedy = problem.rpartition("; ")
        yield error(message or problem, remedy)
    if not problems:
        text = f"{len(scenes)} scene stores and {len(shards)} feature stores, a sample verified"
        yield ok(text if scenes or shards else "none yet")


def _problems(stores: Sequence[T], read: Callable[[T], Any]) -> list[str]:
    """Return what is wrong with those of ``stores`` that ``read`` finds damaged."""
    found = []
    for store in stores:
        try:
            read(store)
        except StoreError as problem:
            found.append(str(problem))
    return found


def _spread(items: Sequence[T], most: int) -> Sequence[T]:
    """Return up to ``most`` of ``items``, evenly spaced."""
    return items[:: max(1, -(-len(items) // most))]
