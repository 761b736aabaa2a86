"""Are the results of earlier runs whole, and can this version read them?

`check_versions` and `check_stores` are quick looks of the doctor. Of the kinds of file in `FILES`
the format version is compared with the one that this version reads: JSON files whole, lists of JSON
lines by their first one. Of the scene stores up to `OPENED` are opened and up to `VERIFIED`
compared with their checksums, evenly spaced. Of the feature stores every manifest is read, and of
up to `VERIFIED` scenes the features.

`verify_results` reads everything again, so that exactly the damaged results can be made again.
Snakemake goes by dates and by whether small inputs changed, so it does not notice a byte that flips
in a store or a file that is cut short. Here all is compared with what was recorded when it was
made. Stores have their own hashes and the manifests, and models have ``model.json``. Of other files
Snakemake kept a checksum when a later stage read them. This costs one read of ``results/``.

What is suspect by its date alone, cannot be read, or could only be made again by training from the
start is named, but not for removal.
"""

import json
from base64 import urlsafe_b64decode
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from threedrs.doctor.finding import Finding, Setting
from threedrs.errors import CheckpointError, DataError, StoreError
from threedrs.evaluation import aggregate, score
from threedrs.io.files import check_scene_name, read_json, read_json_lines, sha256_of_file
from threedrs.models.backbones import config_json
from threedrs.models.checkpoint.folder import hash_files, manifest_path, require_whole
from threedrs.scannet import boxes
from threedrs.scenes.store import SceneStore
from threedrs.tasks import prediction, record
from threedrs.teachers.feature_store import MANIFEST, FeatureStore, verify_store
from threedrs.training import checkpoints

RECORDS = Path(".snakemake") / "metadata"  # beside the folder of results
# Seconds by which a file's date may differ from the recorded one: file systems round.
_ROUNDING = 2.0
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


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One damaged result.

    Attributes:
        problem: one line that names the file and what is wrong with it.
        remake: the file that must go, so that Snakemake makes the result again; None: it stays, and
            ``problem`` says what to do.
    """

    problem: str
    remake: Path | None


def verify_results(results: Path) -> list[Damage]:
    """Return the damaged results in ``results``, the folder that Snakemake wrote.

    What is not there is not missed: Snakemake makes it when it is needed.

    Raises:
        DataError: there is no such folder.
    """
    if not results.is_dir():
        raise DataError(f"{results}: is not a folder; run this where Snakemake was run")
    found = [
        *(
            damage
            for file in sorted(results.glob("scenes/shards/*.json"))
            for damage in _scenes(file)
        ),
        *(
            damage
            for file in sorted(results.glob(f"features/*/*/{MANIFEST}"))
            for damage in _features(file)
        ),
        *(damage for model in sorted(results.glob("train/*/model")) for damage in _model(model)),
        *_files(results),
    ]
    return [_spare_training(results, damage) for damage in found]


def _spare_training(results: Path, damage: Damage) -> Damage:
    """Return the damage, without its removal if only training from the start would mend it.

    With a checkpoint the training goes on from its end; without one, and with its outputs removed
    by Snakemake, all of it is gone.
    """
    if damage.remake is None:
        return damage
    place = damage.remake.relative_to(results).parts
    made_by_training = place[0] == "train" and place[2:] != ("config.json",)
    if not made_by_training or any((results / "train" / place[1]).glob("checkpoints/step-*")):
        return damage
    problem = (
        f"{damage.problem}; it stays: without checkpoints the run would be trained again from the "
        f"start (delete {damage.remake} for that)"
    )
    return replace(damage, problem=problem, remake=None)


def _unreadable(path: Path, error: OSError) -> Damage:
    """Return the damage of a file that cannot be read here, though it may be whole."""
    problem = (
        f"{error.filename or path}: cannot be read ({error.strerror or error}); it stays: check "
        f"its permissions and the disk, and delete {path} if it is lost"
    )
    return Damage(problem=problem, remake=None)


def _scenes(manifest: Path) -> Iterator[Damage]:
    """Compare a shard's scene stores with its manifest."""
    try:
        content = read_json(manifest)
        listed = content["scenes"]
        hashes = {
            check_scene_name(scene, str(manifest)): listed[scene]["content"] for scene in listed
        }
    except DataError as error:
        yield Damage(problem=str(error), remake=manifest)
        return
    except (KeyError, TypeError, AttributeError):
        yield Damage(problem=f"{manifest}: is not a manifest of scene stores", remake=manifest)
        return
    for scene, recorded in hashes.items():
        path = manifest.parent.parent / f"{scene}.zarr"
        try:
            store = SceneStore.open(path)
            store.verify()
        except StoreError as error:
            yield Damage(problem=_without_remedy(str(error)), remake=manifest)
            continue
        if store.content_hash() != recorded:
            yield Damage(problem=f"{path}: is not the store that {manifest} lists", remake=manifest)


def _features(manifest: Path) -> Iterator[Damage]:
    for problem in verify_store(manifest.parent):
        yield Damage(problem=_without_remedy(problem), remake=manifest)


def _model(model: Path) -> Iterator[Damage]:
    try:
        require_whole(model, hash_files(model))
    except CheckpointError as error:
        yield Damage(problem=_without_remedy(str(error)), remake=manifest_path(model))
    except OSError as error:
        yield _unreadable(manifest_path(model), error)


def _without_remedy(message: str) -> str:
    """Return a message without its remedy, which the command prints once for all."""
    return message.partition("; ")[0]


def _files(results: Path) -> Iterator[Damage]:
    """Compare results with the checksums that Snakemake recorded when later stages read them."""
    records = _read_records(results.parent / RECORDS)
    readers: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for job in records.values():
        for name, checksum in (job.get("input_checksums") or {}).items():
            readers[name].append((job.get("starttime") or 0.0, checksum.rpartition(":")[2]))
    for name, found in sorted(readers.items()):
        path = results.parent / name
        own = records.get(name)
        inside = Path(name).parts[0] == results.name and ".." not in Path(name).parts
        try:
            if own is not None and inside and path.is_file():
                yield from _compare(path, own["endtime"], found)
        except OSError as error:
            yield _unreadable(path, error)


def _compare(path: Path, made: float, readers: list[tuple[float, str]]) -> Iterator[Damage]:
    """Compare one file, made at ``made``, with what its ``readers`` (start, SHA-256) found."""
    date = path.stat().st_mtime
    changed = abs(date - made) > _ROUNDING
    # A stage that started before the file was made read an earlier one; one that started after
    # the file was changed by someone else read that.
    checksums = {
        checksum
        for start, checksum in readers
        if start >= made - _ROUNDING and not (changed and start > date)
    }
    if checksums and sha256_of_file(path) not in checksums:
        yield Damage(problem=f"{path}: is not as it was when a later stage read it", remake=path)
    elif changed and not checksums:
        problem = (
            f"{path}: was changed after it was made, by its date alone; it stays: delete it if it "
            "is not as it should be"
        )
        yield Damage(problem=problem, remake=None)


def in_steps(results: Path, files: Collection[Path]) -> list[list[Path]]:
    """Return ``files`` below ``results`` in the order in which to make them, step by step.

    Made again step by step, what turns out as before leaves the next steps' other files as they
    are; in one go, Snakemake would remake all that follows.
    """
    records = _read_records(results.parent / RECORDS)
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            inputs = records.get(name, {}).get("input") or []
            depths[name] = 1 + max((depth(source) for source in inputs), default=0)
        return depths[name]

    steps: dict[int, list[Path]] = defaultdict(list)
    for file in sorted(files):
        steps[depth(file.relative_to(results.parent).as_posix())].append(file)
    return [steps[step] for step in sorted(steps)]


def _read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return Snakemake's records of the jobs that made the results, by output file."""
    records: dict[str, dict[str, Any]] = {}
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        code = "".join(part.removeprefix("@") for part in file.relative_to(folder).parts)
        try:
            name = urlsafe_b64decode(code).decode()
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # a record that was being written: Snakemake ignores it, too
            continue
        if isinstance(record, dict) and isinstance(record.get("endtime"), float):
            records[name] = record
    return records
