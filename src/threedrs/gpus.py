"""Which GPU of this machine a job of one GPU takes, where no scheduler has decided.

Slurm shows each job its own GPUs. Snakemake on one machine only counts them, so jobs that run side
by side agree through lock files: a job holds the lock of its GPU until its process ends, however it
ends.
"""

import fcntl
import itertools
import os
import tempfile
from pathlib import Path
from typing import TextIO

_held: list[TextIO] = []  # open as long as the process lives; closing gives the lock back


def gpus_present() -> list[int]:
    """Return the numbers of this machine's NVIDIA GPUs, without starting CUDA."""
    return sorted(int(path.name[6:]) for path in Path("/dev").glob("nvidia[0-9]*"))


def claim_gpu(gpus: list[int] | None = None, folder: Path | None = None) -> int | None:
    """Let this process see the GPU that the fewest other jobs here hold; return its number.

    None: nothing was claimed, because a scheduler or the user has set CUDA_VISIBLE_DEVICES, or
    because there are fewer than two GPUs. Must be called before CUDA starts.
    """
    gpus = gpus_present() if gpus is None else gpus
    if "CUDA_VISIBLE_DEVICES" in os.environ or len(gpus) < 2:
        return None
    place = folder or Path(tempfile.gettempdir())
    for share, gpu in ((share, gpu) for share in itertools.count() for gpu in gpus):
        lock = (place / f"threedrs-{os.getuid()}-gpu{gpu}-{share}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _held.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
        return gpu
    raise AssertionError("the shares of a GPU do not end")
