"""Inputs that lie elsewhere than when a result was made: the same bytes make nothing stale.

Snakemake compares the paths of a job's inputs with those of the last time, and looks up their
checksums by path. So data that was moved, or is spelled in another way, would make every result
stale. `compare_by_content` lets a record follow its inputs to their new place, once, if each of
them has the name and the content of the one that it stands for. Files that are too large for a
checksum, and folders, have no content on record. A rule that has name, size and date of them as its
parameter `large` (`unhashed`) follows them by name; for any other rule they have changed.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from threedrs.io.files import sha256_of_file

HASHED_BYTES = 200_000_000  # max-checksum-file-size of profiles/default


def unhashed(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return name, size and date (seconds) of the folders and of the files without a checksum."""
    found = []
    for path in sorted(paths):
        with suppress(OSError):  # a missing one is for the rule to name
            status = path.stat()
            if path.is_dir():
                found.append((path.name, 0, int(status.st_mtime)))
            elif status.st_size > HASHED_BYTES:
                found.append((path.name, status.st_size, int(status.st_mtime)))
    return found


def missing_records(results: Path, records: Path) -> str | None:
    """Return a line if ``results`` were copied without Snakemake's ``records`` of them, or None."""
    # Snakemake marks the outputs of running jobs as incomplete: the first jobs made here have no
    # records yet.
    marks = (records, records.parent / "incomplete")
    if not (results / "code.json").is_file() or any(p.is_dir() and any(p.iterdir()) for p in marks):
        return None
    return (
        f"{results}: came without {records}, by which Snakemake knows what results were made from, "
        f"so dates alone say what is made again; copy {records.parent} too (cp -a), or, if the "
        "results are of this configuration and code, call snakemake --touch --cores 1 all, or "
        f"remove {results}"
    )


def compare_by_content(persistence: type[Any]) -> None:
    """Let Snakemake's records, of the class ``PersistenceBase``, follow inputs that were moved."""
    if hasattr(persistence, "follows_moved_inputs"):
        return
    input_changed, checksums = persistence._input_changed, persistence.input_checksums

    def _input_changed(self: Any, job: Any, file: Any = None) -> bool:
        _follow(self, job)
        return bool(input_changed(self, job, file))

    def input_checksums(self: Any, job: Any, input_path: Any) -> Any:
        _follow(self, job)  # newer files are looked up first, before the lists are compared
        return checksums(self, job, input_path)

    replaced: Any = persistence
    replaced._input_changed, replaced.input_checksums = _input_changed, input_checksums
    replaced.follows_moved_inputs = True


def _follow(records: Any, job: Any) -> None:
    """Give the records of a job the places where its inputs are now, if these are the same."""
    if not job.input:
        # Nothing could have moved. Snakemake asks for each output, of which generated scans have
        # six a room in one job: to read all their records each time would take minutes.
        return
    # Snakemake asks once for each input, and each answer needs all of them.
    refused = vars(records).setdefault("not_followed", set())
    by_name = job.rule.params.get("large") is not None
    for output in job.output:
        record, now = records.metadata(output), records._input(job)
        if record is None or record.input is None or record.input == now:
            continue
        if (output, *now) in refused:
            continue
        pairs = _moved(record.input, now)
        known = record.input_checksums or {}
        if pairs and all(
            _is_same(known.get(old), Path(new), by_name) for old, new in pairs.items()
        ):
            record.input = now
            record.input_checksums = {pairs.get(path, path): value for path, value in known.items()}
            with suppress(OSError):  # a help for the next start alone
                records._write_record(records._get_key(output), record)
        else:
            refused.add((output, *now))


def _moved(before: list[str], now: list[str]) -> dict[str, str] | None:
    """Return old path -> new path of the inputs that have moved, or None where the names differ."""
    gone, come = set(before) - set(now), set(now) - set(before)
    # By what the paths end with, as the files of a folder that was moved keep their order so.
    old, new = (sorted(paths, key=lambda path: Path(path).parts[::-1]) for paths in (gone, come))
    if [Path(path).name for path in old] != [Path(path).name for path in new]:
        return None
    return dict(zip(old, new, strict=True))


def _is_same(checksum: str | None, path: Path, by_name: bool) -> bool:
    """Return whether a file has the content on record; what has none may count by its name."""
    try:
        status = path.stat()
    except OSError:
        return False
    if path.is_dir() or status.st_size > HASHED_BYTES:
        return checksum is None and by_name
    return checksum == _checksum(path, status.st_size, status.st_mtime_ns)


@cache  # by size and date too, as a file may change while Snakemake runs
def _checksum(path: Path, size: int, date: int) -> str:
    return f"sha256:{sha256_of_file(path)}"
