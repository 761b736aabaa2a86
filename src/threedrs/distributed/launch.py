"""Start the ranks of a run and end with them.

``python -m threedrs.distributed.launch ... MODULE ARGUMENTS``

With several Slurm tasks, ``srun`` starts a rank a task. Otherwise this process starts a rank a GPU.
Unlike torchrun, it hands a stop signal on to all ranks, which then have all the time they need to
save. If a rank ends with an error, the others have a few seconds to say their word and are then
killed. If this process is killed, so are the ranks: a run that goes on unseen would write beside
the next one.
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import time

from threedrs.distributed.gpus import claim_gpus
from threedrs.distributed.ranks import STOP_SIGNALS, is_lone, own_rank
from threedrs.errors import MachineError, check_arguments, one_line_errors
from threedrs.workflow.processes import end_with_parent, end_with_snakemake

PATIENCE = 20.0  # seconds that the other ranks have after one has failed


def start_process(name: str) -> int:
    """Begin a process of a run, called ``name`` in its log, before torch is loaded.

    Returns:
        Its rank.
    """
    end_with_snakemake()
    rank = own_rank(os.environ)
    if rank == 0:  # what a checkpoint holds beside what is used, for one
        logging.basicConfig(format=f"{name}: %(message)s")
    # The other ranks read the same files and would say the same again.
    logging.getLogger("threedrs").setLevel(logging.INFO if rank == 0 else logging.ERROR)
    if is_lone(os.environ):  # the ranks of a launcher have a GPU each
        claim_gpus()
    return rank


def srun_command(command: list[str], *, nodes: int, tasks: int, cores: int) -> list[str]:
    """Return the ``srun`` line that runs ``command`` as ``tasks`` tasks on ``nodes`` nodes.

    Raises:
        MachineError: the tasks do not divide over the nodes.
    """
    if tasks % nodes:
        raise MachineError(
            f"{tasks} tasks do not divide over {nodes} nodes; set the resource `tasks` to the "
            "nodes times the GPUs of a node"
        )
    return [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={tasks}",
        f"--ntasks-per-node={tasks // nodes}",
        f"--cpus-per-task={cores}",
        "--distribution=block",  # rank 0 on the first node, where the ranks meet
        "--kill-on-bad-exit=1",  # a rank that is gone leaves the others waiting for ever
        "--input=none",
        *command,
    ]


def run_ranks(command: list[str], count: int, cores: int) -> int:
    """Run ``command`` as ``count`` ranks on this machine; return 0, or 1 if any of them failed.

    The ranks divide the job's ``cores``, and the GPUs that other jobs here leave.
    """
    asked: list[int] = []
    # A handler only notes the signal: it may come between two starts, and belongs to all ranks.
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: asked.append(number))
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    meeting |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    claim_gpus(count)
    # Snakemake sets such variables to the cores of the whole job; each rank would take all of them.
    names = {"OMP_NUM_THREADS", *(name for name in os.environ if name.endswith("_NUM_THREADS"))}
    threads = dict.fromkeys(names, str(max(1, cores // count)))
    shared = os.environ | meeting | threads
    ranks = [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            preexec_fn=end_with_parent,  # a SIGKILL of this process reaches the ranks, too
        )
        for rank in range(count)
    ]
    give_up: float | None = None  # when the ranks that still run are killed
    killed: set[int] = set()
    passed_on: set[int] = set()
    while running := [rank for rank in ranks if rank.poll() is None]:
        while asked:
            caught = asked.pop(0)
            passed_on.add(caught)
            for rank in running:
                rank.send_signal(caught)
        # The others wait for the failed rank in a collective, for ever or until a long time limit.
        if give_up is None and any(rank.returncode for rank in ranks):
            give_up = time.monotonic() + PATIENCE
        if give_up is not None and time.monotonic() > give_up:
            for rank in running:
                rank.kill()
                killed.add(rank.pid)
        time.sleep(0.05)
    for place, rank in enumerate(ranks):
        if rank.returncode < 0 and rank.pid not in killed:  # it could not say so itself
            name = signal.Signals(-rank.returncode).name
            asked_for = -rank.returncode in passed_on
            memory = "" if asked_for else "give it more memory if that ran out, and "
            print(
                f"launch: rank {place} was ended by {name}; {memory}run the same command to go on",
                file=sys.stderr,
            )
    return int(any(rank.returncode for rank in ranks))


def main() -> int:
    """Start the ranks; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m threedrs.distributed.launch", description=__doc__
    )
    parser.add_argument("--gpus", type=int, default=1, help="ranks on this machine")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the Slurm job")
    parser.add_argument("--tasks", type=int, default=1, help="ranks as tasks of Slurm; 1: none")
    parser.add_argument("--cores", type=int, default=1, help="CPU cores of the job, or of a task")
    parser.add_argument("module", help="what each rank runs, e.g. threedrs.train")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on")
    given = parser.parse_args()
    command = [sys.executable, "-m", given.module, *given.arguments]
    with one_line_errors("launch"):
        check_arguments()
        if given.tasks > 1:
            command = srun_command(command, nodes=given.nodes, tasks=given.tasks, cores=given.cores)
        elif given.nodes > 1:
            raise MachineError(
                f"{given.nodes} nodes, but one task; set the resource `tasks` to the nodes times "
                "the GPUs of a node"
            )
        elif given.gpus > 1:
            end_with_snakemake()
            return run_ranks(command, given.gpus, given.cores)
        try:
            os.execvp(command[0], command)  # becomes the one rank, or srun
        except FileNotFoundError as error:
            raise MachineError(f"{command[0]} is not on this machine; tasks need Slurm") from error


if __name__ == "__main__":
    sys.exit(main())
