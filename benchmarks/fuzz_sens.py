"""A long fuzz run of the .sens reader: damaged files, whatever becomes of them counted.

Every case must end in SensError or in frames as announced; the memory traced while reading stays
below twice the file, twice the frame that its header announces, and 1 MiB for the decoder. The
cases are those of tests/fixtures/sens_fuzz.py, whose first 20,000 CI runs:

    python benchmarks/fuzz_sens.py --cases 500000
"""

import argparse
import datetime
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fixtures.sens_fuzz import run_cases
from machine import machine

BATCH = 10_000


def main() -> None:
    """Run batches of cases, each with a seed of its own, and print one table row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=500_000)
    arguments = parser.parse_args()
    start = time.perf_counter()
    refused = frames = largest = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batches = int(np.ceil(arguments.cases / BATCH))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(batches):
            tally = run_cases(Path(folder) / "fuzz.sens", BATCH, seed)
            refused += tally.refused
            frames += tally.frames
            largest = max(largest, tally.largest)
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"| `python benchmarks/fuzz_sens.py --cases {arguments.cases}` | {machine()} (1 used) | "
        f"{datetime.date.today().isoformat()} | {batches * BATCH:,} files in {seconds:.0f} s: "
        f"{refused:,} refused by SensError, {frames:,} frames "
        f"read, nothing else; most memory beyond the announced frame {largest / 1024:.0f} KiB; "
        f"the process grew by {grown:.0f} MB |"
    )


if __name__ == "__main__":
    main()
