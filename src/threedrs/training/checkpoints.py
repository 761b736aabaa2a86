"""Training checkpoints: written whole or not at all, verified before use, the newest few kept.

``checkpoints/step-00000050/`` holds weights and moments in ``state/``
(`threedrs.training.optimizer_shards`), the learning rates' schedule, each rank's random state, and
``manifest.json``, which is written last and names every file with its SHA-256. The folder is built
under another name and renamed when complete, and older checkpoints are removed only after that. So
a killed process or a full disk costs the newest one at most. Saving reads every written byte once
more for the checksums.

A run may go on with another number of ranks. With as many as before it goes on bit by bit the same,
otherwise up to the rounding of sums in another order.
"""

import random
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from safetensors import SafetensorError

from threedrs.distributed.ranks import Ranks, broadcast_decision
from threedrs.errors import CheckpointError, DataError
from threedrs.io.files import read_json, sha256_of_files, sha256_of_json, sync, write_json
from threedrs.training.optimizer_shards import read_shards, write_shards
from threedrs.training.recipe import CHECKPOINT_FORMAT, fingerprint_changes

MANIFEST = "manifest.json"
STATE = "state"
SCHEDULE = "schedule.json"
LOG = "log.jsonl"  # of the run, as it grows
# torch.save says so as a RuntimeError
_TORCH_CANNOT_WRITE = re.compile(r"PytorchStreamWriter|inline_container|No space left")
STEP_FOLDER = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: what it has seen and done, also on other numbers of ranks before."""

    step: int = 0  # number of optimizer steps taken
    samples: int = 0  # number of samples seen
    tokens: int = 0  # number of tokens seen
    flops: float = 0.0  # floating-point operations of all steps
    seconds: float = 0.0  # wall time of the steps
    rank_seconds: float = 0.0  # the same, times the number of ranks
    peak_memory_gib: float = 0.0  # peak memory of the rank that used most (`peak_memory`)
    # The step's row of log.jsonl without scores, which are computed after the checkpoint.
    row: Mapping[str, Any] | None = None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in ``folder``, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if STEP_FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.name, reverse=True)


def _random_state(device: torch.device) -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (what libraries draw from)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def _gather_checksums(temporary: Path, mine: list[Path], ranks: Ranks) -> dict[str, str]:
    """Sync the files that this rank wrote, and return the checksums of all ranks' files."""
    # Each rank names its own files, because on a network file system a listing may lack what other
    # nodes have just written.
    for path in (*mine, *{file.parent for file in mine}):
        sync(path)
    names = (file.relative_to(temporary).as_posix() for file in mine)
    own = dict(zip(names, sha256_of_files(mine), strict=True))
    of_rank: list[dict[str, str]] = [{} for _ in range(ranks.count)]
    torch.distributed.all_gather_object(of_rank, own)
    return {name: checksum for files in of_rank for name, checksum in files.items()}


def save_checkpoint(
    engine: Any,
    folder: Path,
    progress: Progress,
    fingerprint: Mapping[str, Any],
    *,
    keep: int,
    ranks: Ranks,
) -> Path:
    """Write the checkpoint of ``progress``; all ranks call this. Return its folder.

    Raises:
        CheckpointError: it could not be written (a full disk); the older ones are untouched.
    """
    target = folder / f"step-{progress.step:08d}"
    temporary = folder / f".{target.name}.tmp"
    if broadcast_decision(ranks, target.exists):  # under its final name, so it is complete
        return target
    try:
        if ranks.first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        torch.distributed.barrier()
        mine = write_shards(engine, temporary / STATE, ranks)
        if ranks.first:
            mine.append(temporary / SCHEDULE)
            write_json(mine[-1], engine.lr_scheduler.state_dict())
        mine.append(temporary / f"random-{ranks.rank:05d}.pt")
        torch.save(_random_state(ranks.device), mine[-1])
        checksums = _gather_checksums(temporary, mine, ranks)
        if ranks.first:
            manifest = {
                "format_version": CHECKPOINT_FORMAT,
                **asdict(progress),
                "ranks": ranks.count,
                "config_hash": sha256_of_json(fingerprint),
                "fingerprint": dict(fingerprint),
                "files": checksums,
            }
            # The order is what makes a kill harmless: the manifest once all files are on the disk,
            # the name once the manifest is, and the removal of older ones at the very end.
            write_json(temporary / MANIFEST, manifest)
            temporary.rename(target)
            sync(folder)
            for old in list_checkpoints(folder)[keep:]:
                shutil.rmtree(old)
        torch.distributed.barrier()
    except (OSError, RuntimeError, SafetensorError) as error:  # safetensors and torch wrap OSError
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, RuntimeError) and not _TORCH_CANNOT_WRITE.search(str(error)):
            raise  # a lost rank or loader
        raise CheckpointError(
            f"{target}: cannot be written ({error}); free disk space there and run the same "
            "command again; the checkpoints before it are kept"
        ) from error
    return target


def _problem(checkpoint: Path, fingerprint: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the folder that a useless checkpoint moves to and why, or None for a valid one."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
        if manifest.get("format_version") != CHECKPOINT_FORMAT:
            return "damaged", f"{checkpoint / MANIFEST} is of another format version"
        if manifest["config_hash"] != sha256_of_json(fingerprint):
            changes = fingerprint_changes(manifest["fingerprint"], fingerprint)
            return f"stale-{manifest['config_hash'][:8]}", f"the recipe has changed: {changes}"
        files = {checkpoint / name: checksum for name, checksum in manifest["files"].items()}
        for file in files:
            if not file.is_file():
                return "damaged", f"{file} is missing"
        for (file, checksum), found in zip(files.items(), sha256_of_files([*files]), strict=True):
            if found != checksum:
                return "damaged", f"{file} does not match its checksum"
    except DataError as error:
        return "damaged", str(error)
    except OSError as error:
        return "damaged", f"{error.filename or checkpoint} cannot be read ({error.strerror})"
    except (KeyError, TypeError, AttributeError):  # valid JSON, but not what we write
        return "damaged", f"{checkpoint / MANIFEST} lacks a part or has one of another kind"
    return None


def find_checkpoint(
    folder: Path, fingerprint: Mapping[str, Any], warn: Callable[[str], None]
) -> Path | None:
    """Return the newest valid checkpoint of this very run, or None to start afresh.

    A damaged checkpoint moves to ``damaged/``. One of another recipe moves to ``stale-<hash>/``,
    with the log of its run, and comes back when the recipe does. Only one process calls this.
    """
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover)
    found = _newest_valid(folder, fingerprint, warn)
    own = folder / f"stale-{sha256_of_json(fingerprint)[:8]}"
    if found is None and list_checkpoints(own):
        warn(f"the recipe is that of {own} again; what is there moves back")
        for path in own.iterdir():
            path.replace(folder / path.name)
        own.rmdir()
        found = _newest_valid(folder, fingerprint, warn)
    return found


def _newest_valid(
    folder: Path, fingerprint: Mapping[str, Any], warn: Callable[[str], None]
) -> Path | None:
    for checkpoint in list_checkpoints(folder):
        problem = _problem(checkpoint, fingerprint)
        if problem is None:
            return checkpoint
        name, reason = problem
        aside = folder / name
        warn(f"{checkpoint.name} is not used and moves to {aside}: {reason}")
        aside.mkdir(exist_ok=True)
        shutil.rmtree(aside / checkpoint.name, ignore_errors=True)
        checkpoint.rename(aside / checkpoint.name)
        log = folder / LOG
        if name.startswith("stale-") and log.is_file():
            log.replace(aside / LOG)
    return None


def load_checkpoint(engine: Any, checkpoint: Path, ranks: Ranks) -> Progress:
    """Restore weights, optimizer, schedule and random state; all ranks call this.

    Raises:
        CheckpointError: it lacks a parameter.
    """
    manifest = read_json(checkpoint / MANIFEST)
    read_shards(engine, checkpoint / STATE, ranks, manifest["step"])
    # The schedule alone does not set a rate before its next step, so this one's is set by hand.
    engine.lr_scheduler.load_state_dict(read_json(checkpoint / SCHEDULE))
    rates = engine.lr_scheduler.get_last_lr()
    for group, rate in zip(engine.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    # A rank that the run did not have before takes another one's random numbers. `weights_only`
    # reads tensors and numbers alone and executes nothing in the file.
    source = checkpoint / f"random-{ranks.rank % manifest['ranks']:05d}.pt"
    _restore_random_state(torch.load(source, weights_only=True), ranks.device)
    return Progress(**{field.name: manifest[field.name] for field in fields(Progress)})
