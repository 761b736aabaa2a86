"""Submit a job to Slurm and print its number: ``python -m threedrs.workflow.slurm_submit``.

The arguments are those of ``sbatch --parsable``. Where `sbatch` names the cluster of the job, that
follows the number behind a semicolon. Snakemake's executor plugin takes any other number in what
`sbatch` prints, such as one in the banner of a site, and any byte that is not UTF-8, for a refusal.
So it does with a request that the controller answers too late. The job would then be submitted, and
run, a second time.
"""

import argparse
import os
import re
import subprocess
import sys
import time

from threedrs.workflow.processes import run_text

SECONDS = 300.0  # for one submission; `sbatch` itself tries again while Slurm takes no jobs
LOOKS = 6  # for a job whose submission went without an answer
BETWEEN = 5.0  # seconds between two of them
_PARSABLE = re.compile(r"\d+(;\S+)?")  # number, and the cluster where there are several


def submit(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit a job; return status 0 with number and cluster, or what `sbatch` said and returned."""
    try:
        done = run_text("sbatch", *arguments, seconds=SECONDS, said=None)
    except OSError as error:
        return subprocess.CompletedProcess(arguments, 127, "", f"sbatch: error: {error}")
    except subprocess.TimeoutExpired:
        said = f"sbatch: error: no answer within {SECONDS:.0f} seconds; timed out"
        done = subprocess.CompletedProcess(arguments, 1, "", said)
    lines = [line.strip() for line in done.stdout.splitlines()]
    numbers = [line for line in lines if _PARSABLE.fullmatch(line)]
    if done.returncode == 0 and len(numbers) == 1:
        return subprocess.CompletedProcess(arguments, 0, numbers[0], "")
    # Slurm itself knows whether there is such a job. A refusal leaves none, so one look is enough;
    # after a request without an answer the controller may still be at work on it.
    late = done.returncode == 0 or "timed out" in done.stderr.lower()
    for look in range(LOOKS if late else 1):
        if look:
            time.sleep(BETWEEN)
        if found := _own_job(arguments):
            return subprocess.CompletedProcess(arguments, 0, found, "")
    if done.returncode == 0 and numbers:  # it ended at once; a banner comes before the number
        return subprocess.CompletedProcess(arguments, 0, numbers[-1], "")
    return subprocess.CompletedProcess(
        arguments, done.returncode or 1, "", done.stderr or f"sbatch: error: said {done.stdout!r}"
    )


def _own_job(arguments: list[str]) -> str | None:
    """Return number and cluster of the newest job with the name and comment of ``arguments``.

    An earlier attempt at the same job has both as well, but has ended, and is not listed.
    """
    name, comment = (arguments[arguments.index(f"--{key}") + 1] for key in ("job-name", "comment"))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-M", "--clusters", "--cluster", default=os.getenv("SBATCH_CLUSTERS"))
    clusters = parser.parse_known_args(arguments)[0].clusters
    where = [f"--clusters={clusters}"] if clusters else []
    try:
        listed = run_text("squeue", *where, "--noheader", f"--name={name}", "--format=%A|%k").stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    cluster, found = clusters or "", {}
    for line in listed.splitlines():
        if line.startswith("CLUSTER: "):  # the jobs of each follow its name
            cluster = line.removeprefix("CLUSTER: ").strip()
        number, _, own = line.strip().partition("|")
        if own == comment:
            found[int(number)] = f"{number};{cluster}" if cluster else number
    return found[max(found)] if found else None


if __name__ == "__main__":
    finished = submit(sys.argv[1:])
    print(finished.stdout, end="")
    print(finished.stderr, end="", file=sys.stderr)
    sys.exit(finished.returncode)
