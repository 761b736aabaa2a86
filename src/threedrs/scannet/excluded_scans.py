"""Scans that cannot be used: left out of a run and said, instead of ending a run of 1,500 scenes.

A boxes file, a shard's manifest and the list of a whole split carry ``left_out``, rows of scene and
reason. A fault of the machine (a full disk, too little memory, a file system that does not answer)
says nothing about the scan and ends the job. How many scans may be left out is for
`threedrs.scenes.excluded` to say.
"""

import errno
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import check_scene_name, read_json

# What a read answers where the file is at fault; None: raised by a decoder, not by the system.
_OF_THE_FILE = frozenset(
    {
        None,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.EINVAL,  # zipfile seeks to before the start of a damaged archive
    }
)
_log = logging.getLogger(__name__)


@contextmanager
def leaving_out(scene: str, reasons: dict[str, str]) -> Iterator[None]:
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
        _log.warning("%s: left out: %s", scene, error)


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


def left_out_rows(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    """Return what a file's ``left_out`` holds."""
    return [{"scene": scene, "reason": reason} for scene, reason in reasons.items()]


def read_left_out(*files: Path) -> dict[str, str]:
    """Return scene -> reason, from the ``left_out`` of all ``files``; one without it has none.

    Raises:
        DataError: a file is missing or malformed.
    """
    reasons: dict[str, str] = {}
    for file in files:
        content = read_json(file)
        rows = content.get("left_out", []) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(
                f"{file}: left_out is no list; delete it and run `snakemake --cores all scenes`"
            )
        for row in rows:
            fields = row if isinstance(row, dict) else {}
            scene = check_scene_name(fields.get("scene", ""), f"{file}: left_out")
            reasons[scene] = str(fields.get("reason"))
    return reasons


def tally(
    reasons: Mapping[str, str], scenes: Iterable[str], summaries: Iterable[Path], unit: str
) -> dict[str, Any]:
    """Return how many records are left out together, and for each scene how many and why.

    Args:
        reasons: the scenes left out.
        scenes: of each record that is left out now, its scene.
        summaries: of conversions, which leave out the records of scenes without boxes; a file
            that is not there adds none.
        unit: what a record is called, and the key of the counts: ``records``, ``questions``.

    Raises:
        DataError: a summary is malformed.
    """
    counts = Counter(scenes)
    for summary in summaries:
        content = read_json(summary) if summary.is_file() else {}
        earlier = content.get("left_out", {}) if isinstance(content, dict) else None
        if not isinstance(earlier, dict):
            raise DataError(f"{summary}: left_out is no table; delete it and convert again")
        counts.update({scene: count for scene, count in earlier.items() if scene in reasons})
    rows = [
        {"scene": scene, "reason": reason, unit: counts[scene]} for scene, reason in reasons.items()
    ]
    return {unit: sum(counts[scene] for scene in reasons), "scenes": rows}
