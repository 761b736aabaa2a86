"""Which results are damaged: all of ``results/`` is read again, so that exactly these are remade.

Snakemake goes by dates and by whether small inputs changed, so it does not notice a byte that flips
in a store or a file that is cut short. Here all is compared with what was recorded when it was
made. Stores have their own hashes and the manifests, and models have ``model.json``. Of other files
Snakemake kept a checksum when a later stage read them.

What is suspect by its date alone, cannot be read, or could only be made again by training from the
start is named, but not for removal.
"""

import json
from base64 import urlsafe_b64decode
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threedrs.errors import (
    CheckpointError,
    DataError,
    StoreError,
    nearest_path,
    one_line,
    without_remedy,
)
from threedrs.io.files import SAFE_NAME, check_scene_name, read_json, sha256_of_file
from threedrs.models.checkpoint.folder import hash_files, manifest_path, require_whole
from threedrs.scenes.store import SceneStore
from threedrs.teachers.feature_shards import verify_store
from threedrs.teachers.feature_store import MANIFEST

RECORDS = Path(".snakemake") / "metadata"  # beside the folder of results
# Seconds by which a file's date may differ from the recorded one: file systems round.
_ROUNDING = 2.0


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One damaged result."""

    problem: str  # one line that names the file and what is wrong with it
    # The file that must go, so that Snakemake makes the result again; None: it stays, and
    # ``problem`` says what to do.
    remake: Path | None


def verify_results(results: Path, say: Callable[[str], None] = lambda line: None) -> list[Damage]:
    """Return the damaged results in ``results``, the folder that Snakemake wrote.

    What is not there is not missed: Snakemake makes it when it is needed. ``say`` is told what is
    being read.

    Raises:
        DataError: there is no such folder, or it holds other things than results.
    """
    if not results.is_dir():
        advice = nearest_path(results) or "run this where Snakemake was run"
        raise DataError(f"{results}: is not a folder; {advice}")
    kinds: tuple[tuple[str, Callable[[Path], Iterator[Damage]]], ...] = (
        ("scenes/shards/*.json", _scenes),
        (f"features/*/*/{MANIFEST}", _features),
        ("train/*/model", _model),
    )
    looks = [(look, path) for pattern, look in kinds for path in sorted(results.glob(pattern))]
    if not (looks or (results.parent / RECORDS).is_dir()) and any(results.iterdir()):
        raise DataError(
            f"{results}: holds no results of the workflow; name the folder results/ that "
            "Snakemake wrote"
        )
    found = []
    for look, path in [*looks, (_files, results)]:
        say(f"reading {path}")
        found += [_spare_training(results, damage) for damage in look(path)]
    return found


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
        hashes = {
            check_scene_name(scene, str(manifest), SAFE_NAME): entry["content"]
            for scene, entry in read_json(manifest)["scenes"].items()
        }
    except (DataError, KeyError, TypeError, AttributeError) as error:
        problem = f"{manifest}: is not a manifest of scene stores ({one_line(error)})"
        yield Damage(problem=problem, remake=manifest)
        return
    for scene, recorded in hashes.items():
        path = manifest.parent.parent / f"{scene}.zarr"
        try:
            store = SceneStore.open(path)
            store.verify()
        except StoreError as error:
            yield Damage(problem=without_remedy(str(error)), remake=manifest)
            continue
        if store.content_hash() != recorded:
            yield Damage(problem=f"{path}: is not the store that {manifest} lists", remake=manifest)


def _features(manifest: Path) -> Iterator[Damage]:
    for problem in verify_store(manifest.parent):
        yield Damage(problem=without_remedy(problem), remake=manifest)


def _model(model: Path) -> Iterator[Damage]:
    try:
        require_whole(model, hash_files(model))
    except CheckpointError as error:
        yield Damage(problem=without_remedy(str(error)), remake=manifest_path(model))
    except OSError as error:
        yield _unreadable(manifest_path(model), error)


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
