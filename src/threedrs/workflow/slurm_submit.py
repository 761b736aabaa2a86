"""Submit a job to Slurm and print its number alone: ``python -m threedrs.workflow.slurm_submit``.

The arguments are those of ``sbatch --parsable``. Snakemake's executor plugin takes any other number
in what `sbatch` prints, such as one in the banner of a site, and any byte that is not UTF-8, for a
refusal. So it does with a request that the controller answers too late. The job would then be
submitted, and run, a second time.
"""

import re
import subprocess
import sys
import time

from threedrs.workflow.processes import run_text

SECONDS = 300.0  # for one submission; `sbatch` itself tries again while Slurm takes no jobs
LOOKS = 6  # for a job whose submission went without an answer
BETWEEN = 5.0  # seconds between two of them
_PARSABLE = re.compile(r"^(\d+)(;\S+)?$")  # number, and the cluster where there are several


def submit(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit a job; return status 0 with its number, or what `sbatch` said and its status."""
    try:
        done = run_text("sbatch", *arguments, seconds=SECONDS, said=None)
    except OSError as error:
        return subprocess.CompletedProcess(arguments, 127, "", f"sbatch: error: {error}")
    except subprocess.TimeoutExpired:
        said = f"sbatch: error: no answer within {SECONDS:.0f} seconds; timed out"
        done = subprocess.CompletedProcess(arguments, 1, "", said)
    lines = [line.strip() for line in done.stdout.splitlines()]
    numbers = [match[1] for line in lines if (match := _PARSABLE.match(line))]
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
    """Return the number of the newest job with the name and comment of ``arguments``.

    An earlier attempt at the same job has both as well, but has ended, and is not listed.
    """
    name, comment = (arguments[arguments.index(f"--{key}") + 1] for key in ("job-name", "comment"))
    try:
        listed = run_text("squeue", "--noheader", f"--name={name}", "--format=%A|%k").stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [line.strip().partition("|") for line in listed.splitlines()]
    return max((number for number, _, own in rows if own == comment), key=int, default=None)


if __name__ == "__main__":
    finished = submit(sys.argv[1:])
    print(finished.stdout, end="")
    print(finished.stderr, end="", file=sys.stderr)
    sys.exit(finished.returncode)
