"""``python -m threedrs.train`` with its stages timed: what a rank spends where.

    torchrun --nproc-per-node=4 benchmarks/timed_training.py --config results/train/RUN/config.json

Trains exactly as the command does. Beside the run's outputs, ``timings-<rank>.json`` says how long
building, verifying, loading and saving checkpoints, and exporting took, in order; the seconds of
each optimizer step; and how long the rank waited for each of its packs. It is written anew after
each step, so that a run that is killed leaves it too.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from threedrs import train as command
from threedrs.io.files import read_json, write_json
from threedrs.training import loop

RANK = int(os.environ.get("RANK", "0"))
STAGES = (
    "prepare",
    "find_checkpoint",
    "start_student",
    "build_engine",
    "load_checkpoint",
    "save_checkpoint",
    "export_run",
)


def timed(name: str, times: list[list[Any]], work: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``work`` so that each call appends its name and seconds to ``times``, and says so."""

    @wraps(work)
    def call(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return work(*arguments, **options)
        finally:
            times.append([name, round(time.perf_counter() - began, 3)])
            if RANK == 0:
                print(*times[-1], flush=True)

    return call


def timed_packs(waits: list[float], load: Callable[..., Any]) -> Callable[..., Any]:
    """Return the loader so that the seconds waited for each pack go to ``waits``."""

    @wraps(load)
    def call(*arguments: Any, **options: Any) -> Iterator[Any]:
        packs = load(*arguments, **options)
        try:
            while True:
                asked = time.perf_counter()
                pack = next(packs, None)
                if pack is None:
                    return
                waits.append(round(time.perf_counter() - asked, 5))
                yield pack
        finally:
            packs.close()

    return call


def main() -> int:
    """Train; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="the resolved run (JSON)")
    config = parser.parse_known_args()[0].config  # what else there is `threedrs.train` reads
    stages: list[list[Any]] = []
    steps: list[list[Any]] = []
    waits: list[float] = []
    for name in STAGES:
        setattr(loop, name, timed(name, stages, getattr(loop, name)))
    step = timed("step", steps, loop.train_step)
    loop.load_packs = timed_packs(waits, loop.load_packs)
    out = Path(read_json(config)["paths"]["out"])
    began = time.perf_counter()

    def write() -> None:
        timings = {
            "seconds": round(time.perf_counter() - began, 1),
            "stages": stages,
            "step_seconds": [seconds for _, seconds in steps],
            "pack_waits": waits,
        }
        write_json(out / f"timings-{RANK}.json", timings)

    def noted_step(*arguments: Any, **options: Any) -> Any:
        outcome = step(*arguments, **options)
        write()
        return outcome

    loop.train_step = noted_step
    status = command.main()
    write()
    return status


if __name__ == "__main__":
    sys.exit(main())
