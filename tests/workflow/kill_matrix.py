"""Processes killed at many points of the small demo, and what the same command makes of it.

    python tests/workflow/kill_matrix.py        # 66 kills, 12 minutes on two cores

One Snakemake call after the other, always the same: each is killed (SIGKILL), or one of its jobs
is, at the next of a list of points, and the last one runs to its end. Nothing that had finished may
run again, and no process of a killed call may be left; at the end the results must equal an
undisturbed run's. kill_points.py has the points, test_kills.py runs a few, docs/RELIABILITY.md
has the outcome of all.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import SMALL, Checkout, make_checkout, named
from kill_points import CHAINS, Point, points_of
from same_results import differences

LOOK_EVERY = 0.003  # seconds


@dataclass(frozen=True)
class Outcome:
    """One call: what it said, which jobs it started and finished, and whether the kill was met."""

    point: Point | None
    hit: bool
    status: int
    said: str
    started: tuple[str, ...]
    finished: tuple[str, ...]


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
        met: dict[tuple[str, str], dict[str, str]] = {}
        kills = 0
        for victim in ("worker", "snakemake"):
            checkout = make_checkout(Path(place, victim))
            for target, stages in CHAINS.items():
                chain = run_chain(checkout, ["--cores", "2", target], points_of(stages, victim))
                for outcome in chain:
                    if outcome.point is None:
                        continue
                    kills += outcome.hit
                    row = met.setdefault((outcome.point.job, outcome.point.when), {})
                    row[victim] = "same results" if outcome.hit else "not met"
                    print(victim, outcome.point.job, outcome.point.when, row[victim], flush=True)
            found = differences(checkout.folder / "results", undisturbed / "results")
            assert not found, found
        print("| job | killed | the job | Snakemake |\n|---|---|---|---|")
        for (job, when), row in met.items():
            cells = [row.get(victim, "not met") for victim in ("worker", "snakemake")]
            print(f"| `{job}` | {when} | {' | '.join(cells)} |")
        print(f"{kills} kills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
