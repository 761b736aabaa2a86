"""Can what earlier runs left be read by this version?

Of the kinds of file in `FILES` the format version is compared with the one that this version
reads: JSON files whole, lists of JSON lines by their first one. Of the scene stores up to `OPENED`
are opened and up to `VERIFIED` compared with their checksums, evenly spaced; of the feature stores
every manifest is read and up to `VERIFIED` scenes are. `threedrs features verify` checks all of a
shard.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from threedrs.doctor.finding import Finding, Setting
from threedrs.errors import DataError, StoreError
from threedrs.evaluation import aggregate, score
from threedrs.io.files import read_json, read_json_lines
from threedrs.models.backbones import config_json
from threedrs.scannet import boxes
from threedrs.scenes.store import SceneStore
from threedrs.tasks import prediction, record
from threedrs.teachers.store import FeatureStore
from threedrs.training import checkpoints

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
            if file.name.endswith(LISTS_OF_OTHERS):
                continue
            count += 1
            message = _version_problem(file, expected)
            if message:
                problems += 1
                yield _version_finding(message, target, of_training=pattern == CHECKPOINTS)
    if not problems:
        text = f"{count} files of earlier runs, all of this version" if count else "none yet"
        yield Finding(check="results", status="ok", message=text)


def _version_finding(message: str, target: str, *, of_training: bool) -> Finding:
    if of_training:  # training sets it aside and goes on without it
        remedy = "finish the run with the version that began it, or let it start afresh"
        return Finding(check="results", status="warning", message=message, remedy=remedy)
    remedy = f"delete it and run `snakemake --cores all {target}`"
    return Finding(check="results", status="error", message=message, remedy=remedy)


def _version_problem(file: Path, expected: int) -> str:
    try:
        content: Any = (
            next(read_json_lines(file), None) if file.suffix == ".jsonl" else read_json(file)
        )
    except DataError as error:
        return str(error)
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
    shards = sorted((setting.results / "features").glob("*/*.zarr"))
    finished = [shard for shard in shards if (shard / "manifest.json").exists()]
    problems: list[str] = []
    _collect(_spread(scenes, OPENED), SceneStore.open, problems)
    if not problems:
        _collect(_spread(scenes, VERIFIED), lambda path: SceneStore.open(path).verify(), problems)
    opened: list[tuple[Path, str]] = []
    for shard in finished:
        _collect([shard], lambda path: _add_scenes(path, opened), problems)
    for shard, scene in _spread(opened, VERIFIED):
        _collect([shard], partial(_read_features, scene=scene), problems)
    for problem in problems:
        message, _, remedy = problem.rpartition("; ")
        yield Finding(check="stores", status="error", message=message or problem, remedy=remedy)
    if not problems:
        text = f"{len(scenes)} scene stores and {len(finished)} feature stores, a sample verified"
        yield Finding(
            check="stores", status="ok", message=text if scenes or finished else "none yet"
        )


def _collect(paths: Sequence[Path], read: Callable[[Path], Any], problems: list[str]) -> None:
    for path in paths:
        try:
            read(path)
        except StoreError as error:
            problems.append(str(error))


def _add_scenes(shard: Path, opened: list[tuple[Path, str]]) -> None:
    opened += [(shard, scene) for scene in FeatureStore.open(shard).scenes]


def _read_features(shard: Path, scene: str) -> None:
    FeatureStore.open(shard).features(scene)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return up to ``most`` of ``items``, evenly spaced."""
    step = max(1, -(-len(items) // most))
    return list(items[::step])
