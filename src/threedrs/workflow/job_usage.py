"""What each job of a run used, from Snakemake's benchmark files.

A file is a table of one row: `s` (wall seconds), `max_rss` (MB, of the job's program and all it
started), `cpu_time` (seconds). A job that ended within half a second was not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from threedrs.errors import DataError
from threedrs.io.files import read_text

_NOT_MEASURED = ("", "-", "NA")


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One finished job."""

    rule: str
    seconds: float
    memory: float = 0.0  # MB; 0: not measured
    cpu_seconds: float = 0.0


def read_job_records(folder: Path) -> Iterator[JobRecord]:
    """Yield the jobs below ``folder``, ``results/benchmarks``.

    Raises:
        DataError: a file is no such table.
    """
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        head, *rows = read_text(path).splitlines() or [""]
        for line in rows:
            row = dict(zip(head.split("\t"), line.split("\t"), strict=False))
            try:
                yield JobRecord(
                    rule=rule,
                    seconds=_number(row["s"]),
                    memory=_number(row.get("max_rss", "")),
                    cpu_seconds=_number(row.get("cpu_time", "")),
                )
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"{path}: is not a benchmark file of Snakemake; remove it, and it comes back "
                    "when its job runs again"
                ) from error


def _number(text: str) -> float:
    return 0.0 if text in _NOT_MEASURED else float(text)
