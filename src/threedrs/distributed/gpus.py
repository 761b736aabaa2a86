"""Which GPUs of this machine a job takes, where no scheduler has decided.

Slurm shows each job its own GPUs. Snakemake on one machine only counts them, so jobs that run side
by side agree through lock files: a job holds the locks of its GPUs until its process ends, however
it ends.
"""

import fcntl
import itertools
import os
import tempfile
from pathlib import Path
from typing import TextIO

_held: list[TextIO] = []  # open as long as the process lives; closing gives the lock back


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """Return CUDA's names of the NVIDIA GPUs that this process may use, without starting CUDA.

    Those in CUDA_VISIBLE_DEVICES, where a scheduler or the user has set it. Otherwise all, by
    number: CUDA counts from 0 also where a container has device files with the host's numbers.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    return [str(number) for number in range(len(list(devices.glob("nvidia[0-9]*"))))]


def claim_gpus(count: int, folder: Path | None = None) -> list[str] | None:
    """Let this process see only the ``count`` GPUs that the fewest other jobs here hold.

    Must be called before CUDA starts.

    Args:
        count: GPUs to claim; where there are fewer, all of them.
        folder: where the lock files are; None: the machine's folder of temporary files.

    Returns:
        The GPUs, as in CUDA_VISIBLE_DEVICES. None: nothing was claimed, because there are fewer
        than two to choose from.
    """
    gpus = visible_gpus()
    if len(gpus) < 2:
        return None
    place = folder or Path(tempfile.gettempdir())
    claimed: list[str] = []
    for share, gpu in ((share, gpu) for share in itertools.count() for gpu in gpus):
        if len(claimed) == min(count, len(gpus)):
            break
        if gpu not in claimed and _lock(place, gpu, share):
            claimed.append(gpu)
    claimed.sort(key=gpus.index)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)
    return claimed


def claim_gpu() -> None:
    """Let this process see the GPU that the fewest other jobs here hold, as `claim_gpus` does."""
    claim_gpus(1)


def _lock(place: Path, gpu: str, share: int) -> bool:
    """Whether this process now holds a job's share of a GPU."""
    name = gpu.replace("/", "-")  # a part of a GPU may be MIG-GPU-<uuid>/1/0
    lock = (place / f"threedrs-{os.getuid()}-gpu{name}-{share}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _held.append(lock)
    return True
