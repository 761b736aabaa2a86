"""Which rank of a run this process is, and where the ranks meet: torchrun's variables or Slurm's.

torchrun and ``threedrs.distributed.launch`` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT. Slurm's ``srun`` numbers its tasks in variables of its own. The ranks of a step meet
on the node of the first, whose address Slurm's controller knows, at a port that follows from job
and step: nothing has to be agreed on beforehand. Kept free of torch, because a lone process claims
its GPU first.
"""

import subprocess
from collections.abc import Mapping

from threedrs.errors import MachineError

# Below the ports that Linux gives out by itself (from 32768), above those of services.
FIRST_PORT = 12000
PORTS = 20000
STEPS = 16  # steps of a job that may run side by side with ports of their own


def by_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether torchrun, or a launcher with its variables, started this process."""
    return "RANK" in environment


def by_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process as one of several tasks of a step.

    A batch script's shell carries task variables too, but none of a step.
    """
    return int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def is_lone(environment: Mapping[str, str]) -> bool:
    """Whether this process is a run of its own."""
    return not by_torchrun(environment) and not by_srun(environment)


def own_rank(environment: Mapping[str, str]) -> int:
    """Return the number of this process among the run's."""
    if by_torchrun(environment):
        return int(environment["RANK"])
    return int(environment["SLURM_PROCID"]) if by_srun(environment) else 0


def rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what torchrun would have set for this process.

    A lone process gets port 0: it needs none. Under srun, MASTER_ADDR and MASTER_PORT that are set
    already stay.

    Raises:
        MachineError: under srun, Slurm does not say where the first node is.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    given = {name: environment[name] for name in names if name in environment}
    if by_torchrun(environment):
        return given
    if not by_srun(environment):
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        return alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": given.get("MASTER_ADDR") or _first_address(environment),
        "MASTER_PORT": given.get("MASTER_PORT") or str(_port(environment)),
    }


def _port(environment: Mapping[str, str]) -> int:
    """Return the port that all tasks of this step derive alike."""
    step = int(environment["SLURM_STEP_ID"]) % STEPS
    return FIRST_PORT + (int(environment["SLURM_JOB_ID"]) * STEPS + step) % PORTS


def _first_address(environment: Mapping[str, str]) -> str:
    """Return the address of the step's first node, where Slurm puts task 0."""
    first = _scontrol("show", "hostnames", environment["SLURM_STEP_NODELIST"]).split()[0]
    for word in _scontrol("--oneliner", "show", "node", first).split():
        if word.startswith("NodeAddr="):
            return word.removeprefix("NodeAddr=")
    return first


def _scontrol(*arguments: str) -> str:
    command = ["scontrol", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise MachineError(
            f"srun started several ranks, but `{' '.join(command)}` failed ({said.strip()}); set "
            "MASTER_ADDR to the address of the first node and run again"
        ) from error
    return done.stdout
