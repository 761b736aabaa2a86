"""Processes killed at many points of the small demo, and what the same command makes of it.

    python tests/workflow/kill_matrix.py        # 40 kills, ten to twenty minutes on two cores

One Snakemake call after the other, always the same: each is killed (SIGKILL), or one of its jobs
is, at the next of a list of points, and the last one runs to its end. Afterwards the results must
equal an undisturbed run's, nothing that had finished may have run again, and no process of a killed
call may be left. test_kills.py runs a few of the points; docs/RELIABILITY.md has the table of all.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from conftest import SMALL, Checkout, make_checkout, named

# Measured, or a hash of what is: allowed to differ by name.
MEASURED = {
    "sources",  # of a summary: hashes of files that hold times
    "seconds",
    "samples_per_second",
    "tokens_per_second",
    "peak_memory_gib",
    "timing",
}
# TensorBoard's files hold dates; checkpoints are no results.
UNCOMPARED = ("logs/*", "benchmarks/*", "train/*/checkpoints/*", "train/*/tensorboard/*")
LOOK_EVERY = 0.003  # seconds
ANSWERS = "results/eval/3drs/scanrefer"


@dataclass(frozen=True)
class Point:
    """Where a process is killed: when ``reached`` first holds while the job runs.

    ``job`` names rule and wildcards, ``mark`` is a text that only this job's command or script
    holds; ``victim`` is the job's own process (``worker``) or ``snakemake``.
    """

    job: str
    mark: str
    victim: str
    when: str
    reached: Callable[[Path], bool]


@dataclass(frozen=True)
class Outcome:
    """One call: what it said, which jobs it started and finished, and whether the kill was met."""

    point: Point | None
    hit: bool
    status: int
    said: str
    started: tuple[str, ...]
    finished: tuple[str, ...]


def there(pattern: str) -> Callable[[Path], bool]:
    """Whether a file of this name is there."""
    return lambda folder: next(folder.glob(pattern), None) is not None


def lines(path: str, count: int) -> Callable[[Path], bool]:
    """Whether the file has that many lines."""

    def enough(folder: Path) -> bool:
        try:
            return (folder / path).read_bytes().count(b"\n") >= count
        except OSError:
            return False

    return enough


def at_once(folder: Path) -> bool:
    """As soon as the job's process is there."""
    return True


def _is_job(process: psutil.Process, point: Point, folder: Path) -> bool:
    """Whether this is the Python process of the point's job."""
    words = process.cmdline()
    if not words or "python" not in Path(words[0]).name:
        return False
    if any("threedrs." in word for word in words):
        return point.mark in " ".join(words) and f"threedrs.{point.job.split()[0]}" in words
    script = next((word for word in words if ".snakemake/scripts/" in word), None)
    if script is None or not script.endswith(f".{point.job.split()[0]}.py"):
        return False
    return point.mark.encode() in Path(folder, script).read_bytes()


def _find_job(snakemake: psutil.Process, point: Point, folder: Path) -> psutil.Process | None:
    for process in snakemake.children(recursive=True):
        try:
            if _is_job(process, point, folder):
                return process
        except (psutil.Error, OSError):
            continue
    return None


def call(checkout: Checkout, arguments: Sequence[str], point: Point | None) -> Outcome:
    """Run Snakemake and kill at ``point``; return when it and all its processes have ended."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environment |= {"PYTHONPATH": str(checkout.folder / "src")}
    command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", str(SMALL)]
    with tempfile.TemporaryFile("w+") as log:
        running = subprocess.Popen(
            command, cwd=checkout.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        hit = point is not None and _kill_at(psutil.Process(running.pid), point, checkout.folder)
        status = running.wait(timeout=800)
        _wait_for_orphans(checkout.folder)
        log.seek(0)
        said = log.read()
    started, finished = jobs_of(said)
    return Outcome(point, hit, status, said, started, finished)


def _kill_at(snakemake: psutil.Process, point: Point, folder: Path) -> bool:
    """Kill the point's victim; return whether its job was met at the point.

    A call whose job got past the point is ended as well, so that later points can be met.
    """
    job = None
    while snakemake.status() != psutil.STATUS_ZOMBIE:
        if job is None:
            job = _find_job(snakemake, point, folder)
        elif not job.is_running() or job.status() == psutil.STATUS_ZOMBIE:
            snakemake.kill()  # the job was faster
            return False
        elif point.reached(folder):
            (job if point.victim == "worker" else snakemake).kill()
            return True
        time.sleep(LOOK_EVERY if job else 0.02)
    return False


def _wait_for_orphans(folder: Path, seconds: float = 10.0) -> None:
    """Wait until no process works in ``folder``; jobs of a killed Snakemake end by themselves."""
    give_up = time.monotonic() + seconds
    while left := working_in(folder):
        assert time.monotonic() < give_up, f"left running: {left}"
        time.sleep(0.05)


def working_in(folder: Path) -> list[str]:
    """Return the commands of the processes whose working directory is ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder.resolve()) and process.status() != "zombie":
                found.append(" ".join(process.cmdline())[:200])
        except psutil.Error:
            continue
    return found


def jobs_of(said: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the jobs (rule and wildcards) that a call started, and those it finished."""
    names = {
        number: named(message)
        for number, message in re.findall(r"^Job (\d+): (.*)$", said, re.MULTILINE)
    }
    ended = re.findall(r"Finished jobid: (\d+) ", said)
    return tuple(names.values()), tuple(names[number] for number in ended if number in names)


# job, mark, and the moments at which it is killed
STAGES: tuple[tuple[str, str, dict[str, Callable[[Path], bool]]], ...] = (
    (
        "demo_data",
        "results/demo/demo.json",
        {
            "start": at_once,
            "first scan written": there("results/demo/scannet/scans/*/*.sens"),
            "annotations being written": there("results/demo/benchmark/scanrefer/*.json"),
        },
    ),
    (
        "boxes train-000",
        "results/boxes/train-000.json",
        {"start": at_once, "result written": there("results/boxes/train-000.json")},
    ),
    (
        "build_scenes train-000",
        "results/scenes/shards/train-000.json",
        {
            "start": at_once,
            "first store half written": there("results/scenes/.scene0000_00.zarr.*.tmp"),
            "first store written": there("results/scenes/scene0000_00.zarr"),
            "manifest written": there("results/scenes/shards/train-000.json"),
        },
    ),
    (
        "extract_features vggt-tiny train-000",
        "results/features/vggt-tiny/train-000.zarr/manifest.json",
        {
            "start": at_once,
            "features half written": there("results/features/*/train-000.zarr/.scene*.tmp"),
            "features written": there("results/features/*/train-000.zarr/scene*"),
            "manifest written": there("results/features/*/train-000.zarr/manifest.json"),
        },
    ),
    (
        "convert_instructions scanrefer train",
        "results/instructions/scanrefer_train.jsonl",
        {"start": at_once, "records written": there("results/instructions/scanrefer_train.jsonl")},
    ),
    (
        "balance full",
        "results/instructions/mixes/full.jsonl",
        {
            "start": at_once,
            "mix written": there("results/instructions/mixes/full.jsonl"),
            "summary written": there("results/instructions/mixes/full.summary.json"),
        },
    ),
    (
        "train 3drs",
        "results/train/3drs/config.json",
        {
            "start": at_once,
            "step 1 logged": lines("results/train/3drs/checkpoints/log.jsonl", 1),
            "checkpoint half written": there("results/train/3drs/checkpoints/.step-*.tmp/*"),
            "step 3 logged": lines("results/train/3drs/checkpoints/log.jsonl", 3),
            "model half written": there("results/train/3drs/.model.*.tmp"),
            "model written": there("results/train/3drs/model"),
        },
    ),
    (
        "predict 3drs scanrefer",
        "results/eval/3drs/scanrefer/predictions.jsonl",
        {
            "start": at_once,
            "some answers written": lines(f"{ANSWERS}/predictions.partial.jsonl", 2),
            "predictions written": there(f"{ANSWERS}/predictions.jsonl"),
        },
    ),
    (
        "score 3drs scanrefer",
        "results/eval/3drs/scanrefer/metrics.json",
        {"start": at_once, "metrics written": there("results/eval/3drs/scanrefer/metrics.json")},
    ),
    (
        "aggregate",
        "results/report/summary.csv",
        {"start": at_once, "first table written": there("results/report/summary.*")},
    ),
    (
        "build_report",
        "results/report/index.html",
        {"start": at_once, "page written": there("results/report/index.html")},
    ),
)


def point(job: str, when: str, victim: str) -> Point:
    """Return the point of a job and moment."""
    mark, moments = next((mark, moments) for name, mark, moments in STAGES if name == job)
    return Point(job, mark, victim, when, moments[when])


def all_points(victim: str) -> list[Point]:
    """Return the points of all stages for one victim."""
    return [point(job, when, victim) for job, _, moments in STAGES for when in moments]


def run_chain(
    checkout: Checkout, arguments: Sequence[str], points: Sequence[Point]
) -> Iterator[Outcome]:
    """Call once a point and once more to the end; check each call, yield what it was.

    Raises AssertionError where a call does not take up what the one before it left.
    """
    done: list[str] = []
    for point in [*points, None]:
        if point is not None and point.job in done:
            continue
        outcome = call(checkout, arguments, point)
        again = set(done) & set(outcome.started)
        assert not again, f"{point}: finished before, run again: {sorted(again)}"
        assert "cannot be locked" not in outcome.said, outcome.said[-3000:]
        if outcome.hit:
            assert point is not None
            wanted = 1 if point.victim == "worker" else -signal.SIGKILL
            assert outcome.status == wanted, outcome.said[-3000:]
            assert point.job not in outcome.finished
        else:
            wanted = 0 if point is None else -signal.SIGKILL
            assert outcome.status == wanted, f"{point}: {outcome.said[-6000:]}"
        done += outcome.finished
        yield outcome
    left = list((checkout.folder / "results").rglob("*.tmp"))
    assert not left, f"left behind: {left}"


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return what differs between two results folders, other than measured numbers."""
    names = [{*_compared(folder)} for folder in (ours, theirs)]
    found = [f"only in one: {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if not _equal(ours / name, theirs / name):
            found.append(name)
    return found


def _compared(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        inside = any(
            part.match(pattern) for part in (relative, *relative.parents) for pattern in UNCOMPARED
        )
        if path.is_file() and not inside and path.suffix != ".lock":
            yield relative.as_posix()


def _equal(ours: Path, theirs: Path) -> bool:
    one, other = ours.read_bytes(), theirs.read_bytes()
    if one == other:
        return True
    if ours.suffix == ".npz":
        with np.load(ours) as left, np.load(theirs) as right:
            return set(left) == set(right) and all(
                np.array_equal(left[key], right[key], equal_nan=left[key].dtype.kind == "f")
                for key in left
            )
    if ours.suffix in (".json", ".jsonl"):
        parse = json.loads if ours.suffix == ".json" else _rows
        return _computed(parse(one)) == _computed(parse(other))
    if ours.suffix == ".html":
        return _TIMES.sub(b"", one) == _TIMES.sub(b"", other)
    return False


# The page's table of seconds and megabytes, its curve of the speed of training, and such numbers
# within the provenance.
_TIMES = re.compile(
    rb'<section id="costs".*?</section>|<svg(?:(?!</svg>).)*samples a second.*?</svg>'
    rb'|"timing": \{[^}]*\}'
    rb'|"(?:seconds|samples_per_second|tokens_per_second|peak_memory_gib)": [^,}]*',
    re.DOTALL,
)


def _rows(text: bytes) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _computed(value: Any) -> Any:
    """Return the value without what is measured."""
    if isinstance(value, dict):
        return {key: _computed(item) for key, item in value.items() if key not in MEASURED}
    return [_computed(item) for item in value] if isinstance(value, list) else value


def main() -> int:
    """Run the matrix in a temporary folder and print its table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--undisturbed", type=Path, help="checkout with the small demo's results")
    undisturbed = parser.parse_args().undisturbed
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        if undisturbed is None:
            undisturbed = Path(place, "undisturbed")
            said = make_checkout(undisturbed).snakemake("--cores", "2", "all")
            assert said.returncode == 0, said.stdout[-6000:]
        met: dict[str, dict[tuple[str, str], bool]] = {}
        for victim in ("worker", "snakemake"):
            checkout = make_checkout(Path(place, victim))
            met[victim] = {}
            for outcome in run_chain(checkout, ["--cores", "2", "all"], all_points(victim)):
                if outcome.point is not None:
                    met[victim][outcome.point.job, outcome.point.when] = outcome.hit
                    print(victim, outcome.point.job, outcome.point.when, outcome.hit, flush=True)
            found = differences(checkout.folder / "results", undisturbed / "results")
            assert not found, found
        print("| job | killed | the job | Snakemake |\n|---|---|---|---|")
        words = {True: "same results", False: "not met"}
        for key, hit in met["worker"].items():
            other = words[met["snakemake"].get(key, False)]
            print(f"| `{key[0]}` | {key[1]} | {words[hit]} | {other} |")
        print(f"{sum(sum(hits.values()) for hits in met.values())} kills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
