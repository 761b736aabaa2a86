"""The GPUs of this machine: which of them a job takes, and what to say when one is too small.

Slurm shows each job its own GPUs. Snakemake on one machine only counts them, so jobs that run side
by side agree through lock files: a job holds the locks of its GPUs until its process ends, however
it ends. torch is imported inside functions, because a job claims its GPU before torch is loaded.
"""

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from threedrs.errors import MachineError

if TYPE_CHECKING:
    import torch

_held: list[TextIO] = []  # open as long as the process lives; closing gives the lock back


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """Return CUDA's names of the NVIDIA GPUs that this process may use, without starting CUDA.

    These are the GPUs in CUDA_VISIBLE_DEVICES, where a scheduler or the user has set it, and all
    GPUs otherwise. CUDA counts from 0 even where a container has device files with other numbers.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    # To ask CUDA would start it, and then it would no longer heed CUDA_VISIBLE_DEVICES.
    return [str(number) for number in range(len(list(devices.glob("nvidia[0-9]*"))))]


def claim_gpus(count: int = 1) -> list[str] | None:
    """Let this process see only the ``count`` GPUs that the fewest other jobs here hold.

    Must be called before CUDA starts. Where there are fewer GPUs, all of them are claimed. The
    lock files are temporary files. Returns the GPUs, as in CUDA_VISIBLE_DEVICES, or None if there
    are fewer than two to choose from.
    """
    gpus = visible_gpus()
    if len(gpus) < 2:
        return None
    claimed: list[str] = []
    # The first lock of each GPU, then the second of each: so the least busy ones come first.
    for number, gpu in ((number, gpu) for number in itertools.count() for gpu in gpus):
        if len(claimed) == min(count, len(gpus)):
            break
        if gpu not in claimed and _lock(gpu, number):
            claimed.append(gpu)
    claimed.sort(key=gpus.index)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)
    return claimed


def _lock(gpu: str, number: int) -> bool:
    """Return whether this process now holds the GPU's lock ``number``."""
    name = gpu.replace("/", "-")  # a part of a GPU may be MIG-GPU-<uuid>/1/0
    file = f"threedrs-{os.getuid()}-gpu{name}-{number}.lock"
    lock = (Path(tempfile.gettempdir()) / file).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _held.append(lock)
    return True


def own_device(local_rank: int = 0) -> "torch.device":
    """Return the GPU of a rank, which becomes the current one, or the CPU where there is no GPU.

    Raises:
        MachineError: the node has fewer GPUs than ranks.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise MachineError(
            f"local rank {local_rank} has no GPU ({torch.cuda.device_count()} found); start as "
            "many ranks a node as it has GPUs, each of which sees all of them"
        )
    device = torch.device("cuda", local_rank)
    # Compiled kernels and recorded passes run on the current GPU, wherever their tensors are.
    torch.cuda.set_device(device)
    return device


@contextmanager
def translate_oom(what: str, remedy: str) -> Iterator[None]:
    """Raise MachineError with a remedy where a GPU is out of memory for ``what``."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MachineError(f"{what}: the GPU is out of memory; {remedy}") from error
