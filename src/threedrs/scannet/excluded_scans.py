"""Scans that cannot be used: a run of 1,500 scenes excludes and names them, and goes on.

A boxes file, a shard's manifest and the list of a whole split carry ``left_out``, rows of scene and
reason. A fault of the machine (a full disk, too little memory, a file system that does not answer)
says nothing about the scan and ends the job.

Whether enough of a split's scans can be used is decided after the scene stage of the whole split,
from its manifests. Training and prediction wait for that.
"""

import errno
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from threedrs.config.section import Section
from threedrs.config.value_types import Fraction
from threedrs.errors import DataError
from threedrs.io.files import read_json, write_json

FORMAT_VERSION = 1
# What a read answers where the file is at fault; None: raised by a decoder, not by the system.
# EINVAL: zipfile seeks to before the start of a damaged archive.
_OF_THE_FILE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM,
                errno.ELOOP, errno.EINVAL)  # fmt: skip
logger = logging.getLogger(__name__)


@contextmanager
def excluding(scene: str, reasons: dict[str, str]) -> Iterator[None]:
    """Note a fault of the scan that ends the block under ``scene``, and go on after the block.

    Raises:
        ThreedrsError: the fault is not the scan's: a store cannot be written, or the cause is one
            of the machine.
    """
    try:
        yield
    except DataError as error:
        if not is_of_the_file(error):
            raise
        reasons[scene] = str(error)
        logger.warning("%s: left out: %s", scene, error)


def is_of_the_file(error: DataError) -> bool:
    """Whether a file's content, name or permissions cause ``error``, and not the machine."""
    cause: BaseException | None = error.__cause__
    while cause is not None:
        if isinstance(cause, MemoryError):
            return False
        if isinstance(cause, OSError) and cause.errno not in _OF_THE_FILE:
            return False
        cause = cause.__cause__
    return True


def excluded_rows(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    """Return what a file's ``left_out`` holds."""
    return [{"scene": scene, "reason": reason} for scene, reason in reasons.items()]


def read_excluded(*files: Path) -> dict[str, str]:
    """Return scene -> reason, from the ``left_out`` of all ``files``; one without it has none.

    Raises:
        DataError: a file is missing or not JSON.
    """
    return {
        row["scene"]: row["reason"] for file in files for row in read_json(file).get("left_out", [])
    }


def count_excluded(
    reasons: Mapping[str, str], scenes: Iterable[str], summaries: Iterable[Path], unit: str
) -> dict[str, Any]:
    """Return how many records are excluded together, and for each scene how many and why.

    Args:
        scenes: of each record that is excluded now, its scene.
        summaries: of conversions, which exclude the records of scenes without boxes. A file that
            is not there adds none.
        unit: what a record is called, and the key of the counts: ``records``, ``questions``.

    Raises:
        DataError: a summary is not JSON.
    """
    counts = Counter(scenes)
    for summary in summaries:
        earlier = read_json(summary).get("left_out", {}) if summary.is_file() else {}
        counts.update({scene: count for scene, count in earlier.items() if scene in reasons})
    rows = [
        {"scene": scene, "reason": reason, unit: counts[scene]} for scene, reason in reasons.items()
    ]
    return {unit: sum(counts[scene] for scene in reasons), "scenes": rows}


class BadScenePolicy(Section):
    """What is done about scans that cannot be used: keys of the config's section ``data``."""

    place = "data"
    on_bad_scene: Literal["skip", "fail"] = "skip"
    """What a scan that cannot be used (no valid pose, a damaged file) means. With `skip` the run
    goes on without it, and scene report, mix and scores say so. With `fail` none may be
    excluded."""
    max_bad_fraction: Fraction = 0.05
    """With skip, more excluded scans than this fraction of a split stop the run before training."""


def check_excluded(
    split: str, manifests: Sequence[Path], policy: BadScenePolicy, out: Path
) -> None:
    """Write a split's excluded scenes with their reasons, if the run may go on without them.

    Args:
        out: JSON: ``scenes``, how many can be used, and ``left_out``.

    Raises:
        DataError: too many scenes are excluded, or all; or a manifest is not JSON.
    """
    excluded = read_excluded(*manifests)
    usable = sum(len(read_json(manifest)["scenes"]) for manifest in manifests)
    _require_enough(split, usable, excluded, policy)
    content = {"split": split, "scenes": usable, "left_out": excluded_rows(excluded)}
    write_json(out, {"format_version": FORMAT_VERSION, **content})


def check_limit(file: Path, policy: BadScenePolicy, out: Path) -> None:
    """Hold what `check_excluded` wrote to ``file`` against ``policy``, and note this in ``out``.

    Raises:
        DataError: as `check_excluded`.
    """
    content = read_json(file)
    _require_enough(content["split"], content["scenes"], read_excluded(file), policy)
    write_json(out, {"format_version": FORMAT_VERSION, **policy.to_json()})


def _require_enough(
    split: str, usable: int, excluded: Mapping[str, str], policy: BadScenePolicy
) -> None:
    total = usable + len(excluded)
    some = f"{len(excluded)} of {total} {split} scenes cannot be used"
    problem, remedy = None, ""
    if excluded and not usable:
        problem = f"none of the {total} {split} scenes can be used"
    elif excluded and policy.on_bad_scene == "fail":
        problem = f"{some} (data.on_bad_scene: fail)"
        remedy = ", or set data.on_bad_scene: skip"
    elif len(excluded) > policy.max_bad_fraction * total:
        problem = f"{some}, more than data.max_bad_fraction {policy.max_bad_fraction:g}"
        remedy = ", or raise data.max_bad_fraction to go on without them"
    if problem is not None:
        scene, reason = next(iter(excluded.items()))
        raise DataError(
            f"{problem}, e.g. {scene}: {reason}; the scene report, results/scenes/report.html, "
            f"lists all: put their files right{remedy}"
        )


def check_removed(shards: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Check that the stores that the shards' manifests list are there.

    The manifests stand for the stores, which are many, so nothing else would miss one.

    Args:
        folder: where ``<scene>.zarr`` and ``shards/<shard>.json`` are. A manifest that is missing
            or cannot be read lists none.

    Raises:
        DataError: a store was removed; the message says how to make it again.
    """
    removed = []
    for shard, scenes in shards.items():
        try:
            listed = set(read_json(folder / "shards" / f"{shard}.json")["scenes"])
        except (DataError, KeyError, TypeError):
            continue
        removed += [
            folder / f"{scene}.zarr"
            for scene in scenes
            if scene in listed and not (folder / f"{scene}.zarr" / "zarr.json").exists()
        ]
    if removed:
        more = f" and {len(removed) - 1} more" if len(removed) > 1 else ""
        raise DataError(
            f"{removed[0]}{more}: removed, though listed in {folder / 'shards'}; run `threedrs "
            "verify --repair`, which says how to make it again"
        )
