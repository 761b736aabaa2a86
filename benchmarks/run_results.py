"""What the benchmarks read of a results folder, or one line that says what would make it."""

from pathlib import Path
from typing import Any

from threedrs.errors import DataError, nearest_path
from threedrs.io.files import read_json_lines


def made(results: Path, place: str) -> Path:
    """Return a file or folder of the results by its place there.

    Raises:
        DataError: it is not there; the message has the command that makes it.
    """
    path = results / place
    if path.exists():
        return path
    asked = f"snakemake --cores all --configfile FILE -- results/{place}"
    near = nearest_path(path)
    raise DataError(
        f"{path}: is not there; {f'{near} Or ' if near else ''}make it: `{asked}`, "
        "where FILE is the configuration of the runs"
    )


def of_run(results: Path, run: str, benchmark: str, name: str) -> Path:
    """Return a file of a run's evaluation on a benchmark.

    Raises:
        DataError: it is not there; the message names run, benchmark and the command.
    """
    try:
        return made(results, f"eval/{run}/{benchmark}/{name}")
    except DataError as error:
        raise DataError(f"run {run} is not evaluated on {benchmark}: {error}") from error


def predictions(results: Path, run: str, benchmark: str) -> list[dict[str, Any]]:
    """Return a run's prediction rows.

    Raises:
        DataError: as `of_run`.
    """
    return list(read_json_lines(of_run(results, run, benchmark, "predictions.jsonl")))


def evaluated_runs(results: Path) -> list[str]:
    """Return the names of the runs with results.

    Raises:
        DataError: there is none.
    """
    runs = sorted(path.name for path in results.glob("eval/*") if path.is_dir())
    if not runs:
        raise DataError(
            f"{results}: has no evaluated run; call `snakemake --cores all --configfile FILE "
            "-- scores`, where FILE is the configuration of the runs"
        )
    return runs
