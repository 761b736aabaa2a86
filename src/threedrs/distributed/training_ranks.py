"""The processes of a training run: joining them, and deciding something once for all of them."""

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed

from threedrs.distributed.rendezvous import is_lone, rank_variables
from threedrs.errors import MachineError, ThreedrsError

T = TypeVar("T")


class AgreedError(ThreedrsError):
    """All ranks raise it alike; the first one tells the user."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


def start_ranks() -> Ranks:
    """Join the process group that torchrun or srun describes; without them, be a group of one.

    NCCL on GPUs, gloo on CPU. A lone process needs neither a port nor a network interface. On CPU,
    DeepSpeed's shared-memory helper, which it would compile for a minute at its first start, is
    left out: gloo does its work.

    Raises:
        MachineError: this node has fewer GPUs than ranks, or Slurm does not say where ranks meet.
    """
    cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    lone = is_lone(os.environ)
    os.environ.update(rank_variables(os.environ))
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    if cuda:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise MachineError(
                f"local rank {local} has no GPU ({torch.cuda.device_count()} found); start as many "
                "ranks a node as it has GPUs, each of which sees all of them"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    import deepspeed  # after DS_ACCELERATOR is set; takes seconds

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch 2.13 renames; one warning a call and layer.
    warnings.filterwarnings("ignore", message="`torch.distributed", category=FutureWarning)
    # The device under the current context, which this asks to confirm, is the one set above.
    warnings.filterwarnings("ignore", message=r"barrier\(\): using the device")
    if not cuda:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if cuda else "gloo"
    if lone:
        torch.distributed.init_process_group(
            backend, store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return Ranks(rank=rank, count=count, device=device)


def peak_memory(ranks: Ranks) -> float:
    """Return the peak memory in GiB of the rank that used most: GPU memory, on CPU the process."""
    if ranks.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(ranks.device) / 2**30
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    value = torch.tensor([peak], dtype=torch.float64, device=ranks.device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return value.item()


def any_rank(ranks: Ranks, flag: bool) -> bool:
    """Return on all ranks whether ``flag`` is set on any; all ranks call this."""
    value = torch.tensor([float(flag)], device=ranks.device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return value.item() > 0


def agree(ranks: Ranks, decide: Callable[[], T]) -> T:
    """Return what ``decide`` returns on the first rank, the only one that runs it.

    Raises:
        AgreedError: on all ranks, if ``decide`` raised an error that the user can put right.
    """
    answer: list[Any] = [None, None]
    if ranks.first:
        try:
            answer[0] = decide()
        except ThreedrsError as error:
            answer[1] = str(error)
    torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise AgreedError(answer[1])
    return answer[0]
