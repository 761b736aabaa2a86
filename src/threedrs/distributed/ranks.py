"""The ranks of a run: which one this process is, where they meet, what they decide together.

A rank is one of the processes of a run. torchrun and ``threedrs.distributed.launch`` say which one
in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Slurm's ``srun`` numbers its tasks in
variables of its own; the ranks of a step then meet on the node of the first, whose address Slurm's
controller knows, at a port that follows from job and step, so that nothing has to be agreed on
beforehand. A process that nobody started as a rank is a run of one.

torch is imported inside functions: a process catches stop signals and claims its GPU before torch,
which takes seconds to load.
"""

import logging
import os
import re
import resource
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from threedrs.distributed.gpus import own_device
from threedrs.errors import MachineError, ThreedrsError
from threedrs.workflow.processes import quick_imports, run_text

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# SIGUSR1 is Slurm's warning before the time limit (slurm/config.yaml), SIGINT that of Ctrl-C.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Below the ports that Linux gives out by itself (from 32768), above those of services.
FIRST_PORT = 12000
PORTS = 20000
STEPS = 16  # steps of a job that may run side by side with ports of their own
# Inference: one rank may have scenes left for hours after another is done.
_PATIENCE = timedelta(days=7)


class AgreedError(ThreedrsError):
    """An error that all ranks raise alike, so that only the first one has to tell the user."""


@dataclass
class StopRequest:
    """Remembers a stop signal for the training loop, which saves after the step that it is in."""

    name: str | None = None

    def install(self) -> "StopRequest":
        """Catch the signals from here on."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: object) -> None:
        self.name = signal.Signals(number).name


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among the ranks of its run."""

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    @cached_property
    def device(self) -> "torch.device":
        """The device of this rank; raises MachineError if the node has fewer GPUs than ranks."""
        return own_device(self.local_rank)


def _by_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun, and nothing that sets torchrun's variables, started this process."""
    # One of several tasks of a step: a batch script's shell carries task variables too, but none
    # of a step.
    return "RANK" not in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def is_lone(environment: Mapping[str, str]) -> bool:
    """Whether this process is the only one of its run."""
    return "RANK" not in environment and not _by_srun(environment)


def own_rank(environment: Mapping[str, str]) -> int:
    """Return the rank of this process."""
    return int(environment["SLURM_PROCID"] if _by_srun(environment) else environment.get("RANK", 0))


def rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what torchrun would have set for this process.

    A lone process gets port 0, because it needs none. Under srun, MASTER_ADDR and MASTER_PORT stay
    where they are set already.

    Raises:
        MachineError: under srun, Slurm does not say where the first node is.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    given = {name: environment[name] for name in names if name in environment}
    if is_lone(environment):
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        return alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    if not _by_srun(environment):
        return given
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": given.get("MASTER_ADDR") or _first_address(environment),
        "MASTER_PORT": given.get("MASTER_PORT") or str(_port(environment)),
    }


def _port(environment: Mapping[str, str]) -> int:
    """Return the port that every task of this Slurm step works out for itself."""
    # Neighbouring jobs and steps, which may share a node, get different ports.
    step = int(environment["SLURM_STEP_ID"]) % STEPS
    return FIRST_PORT + (int(environment["SLURM_JOB_ID"]) * STEPS + step) % PORTS


def _first_address(environment: Mapping[str, str]) -> str:
    """Return the address of the step's first node, where Slurm puts task 0."""
    # By address, not by name: a node's name may mean 127.0.1.1 on the node itself.
    first = _scontrol("show", "hostnames", environment["SLURM_STEP_NODELIST"]).split()[0]
    for word in _scontrol("--oneliner", "show", "node", first).split():
        if word.startswith("NodeAddr="):
            return word.removeprefix("NodeAddr=")
    return first


def _scontrol(*arguments: str) -> str:
    command = ["scontrol", *arguments]
    try:
        done = run_text(*command)
        done.check_returncode()
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise MachineError(
            f"srun started several ranks, but `{' '.join(command)}` failed ({said.strip()}); set "
            "MASTER_ADDR to the address of the first node and run again"
        ) from error
    return done.stdout


def _this_rank() -> Ranks:
    """Return this process's rank, with torchrun's variables set for torch and DeepSpeed."""
    os.environ.update(rank_variables(os.environ))
    return Ranks(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        count=int(os.environ["WORLD_SIZE"]),
    )


def start_ranks() -> Ranks:
    """Join the process group of a training run, and return this process's rank in it.

    The group uses NCCL on GPUs and gloo on the CPU.

    Raises:
        MachineError: this node has fewer GPUs than ranks, or Slurm does not say where ranks meet.
    """
    import torch
    import torch.distributed

    ranks, lone = _this_rank(), is_lone(os.environ)
    cuda = ranks.device.type == "cuda"  # the current GPU from here on
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    # DeepSpeed imports its Muon optimizer, which is not used here, with each engine; what decorates
    # its functions would load torch's whole compiler, for a second.
    compiles = "TORCHDYNAMO_DISABLE" not in os.environ
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    with quick_imports():  # after DS_ACCELERATOR is set; takes seconds
        import deepspeed
        import deepspeed.runtime.zero.muon.muon_optimizer

    if compiles:
        del os.environ["TORCHDYNAMO_DISABLE"]
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch 2.13 renames; one warning a call and layer.
    warnings.filterwarnings("ignore", message="`torch.distributed", category=FutureWarning)
    # The device under the current context, which this asks to confirm, is the one set above.
    warnings.filterwarnings("ignore", message=r"barrier\(\): using the device")
    if not cuda:
        # DeepSpeed would compile its shared-memory helper for a minute at its first start; gloo
        # does the same work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if cuda else "gloo"
    if lone:  # a store in memory: a lone process needs neither a port nor a network interface
        torch.distributed.init_process_group(
            backend, store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return ranks


@contextmanager
def inference_ranks() -> Iterator[Ranks]:
    """Yield this process's rank of an inference run, within a process group if there are several.

    The ranks only wait for each other and exchange nothing. So the group uses gloo on GPUs too.

    Raises:
        MachineError: under srun, Slurm does not say where the first node is.
    """
    if rank_variables(os.environ)["WORLD_SIZE"] == "1":
        yield Ranks()
        return
    from torch import distributed

    ranks = _this_rank()
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()


def wait_for_ranks(ranks: Ranks) -> None:
    """Go on when every rank of an inference run is here.

    Raises:
        MachineError: another rank is gone.
    """
    if ranks.count == 1:
        return
    from torch import distributed

    try:
        distributed.barrier()
    except RuntimeError as error:
        raise MachineError(
            "another rank stopped, see its message; finished scenes are kept, run it again"
        ) from error


def broadcast_decision(ranks: Ranks, decide: Callable[[], T]) -> T:
    """Return what ``decide`` returns on the first rank, the only one that runs it.

    Raises:
        AgreedError: on all ranks, if ``decide`` raised an error that the user can put right.
    """
    from torch import distributed

    # An error is broadcast like an answer. If the first rank just raised it, the others would wait
    # for its answer and then report a lost rank in place of the reason.
    answer: list[Any] = [None, None]
    if ranks.first:
        try:
            answer[0] = decide()
        except ThreedrsError as error:
            answer[1] = str(error)
    distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise AgreedError(answer[1])
    return answer[0]


def any_rank(ranks: Ranks, flag: bool) -> bool:
    """Return on all ranks whether ``flag`` is set on any; all ranks call this."""
    return _largest(ranks, float(flag)) > 0


def peak_memory(ranks: Ranks) -> float:
    """Return the peak memory in GiB of the rank that used most: GPU memory, on CPU the process."""
    if ranks.device.type == "cpu":
        return _largest(ranks, peak_resident() / 2**30)
    import torch

    return _largest(ranks, torch.cuda.max_memory_allocated(ranks.device) / 2**30)


def peak_resident() -> int:
    """Return the most bytes of memory that this process has held."""
    # What `getrusage` tells begins at what the process held that started this one, a Snakemake with
    # thousands of jobs, say. It serves where a container's kernel does not tell the other.
    status = Path("/proc/self/status").read_text(encoding="latin-1")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    kilobytes = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * kilobytes


def least_memory(ranks: Ranks) -> float | None:
    """Return the bytes that the run may take of the GPU that has least left; None on the CPU."""
    if ranks.device.type != "cuda":
        return None
    import torch

    # What this process holds is its own: ZeRO-3's share of the parameters is there before.
    free, _ = torch.cuda.mem_get_info(ranks.device)
    return -_largest(ranks, -(free + torch.cuda.memory_reserved(ranks.device)))


def _largest(ranks: Ranks, value: float) -> float:
    import torch
    import torch.distributed

    values = torch.tensor([value], dtype=torch.float64, device=ranks.device)
    torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
    return values.item()
