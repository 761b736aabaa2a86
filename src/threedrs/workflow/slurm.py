"""Why Slurm refused or ended a job, and the setting to change.

Snakemake says of a job only that Slurm refused it, or ended it with some state. The reason of the
latter stands in the job's own log of Slurm, of which the last 64 KiB are read.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from threedrs.workflow.failure_causes import tail_lines
from threedrs.workflow.slurm_watch import LOST

PROFILE = "slurm/config.yaml"

_STATE = re.compile(r"SLURM-job '(?P<number>\w+)' failed.*?SLURM status is: '(?P<state>\w+)'")
_REFUSED = re.compile(
    r"(?:sbatch failed\. The error message was '|submission failed with exception: )"
    r"(?P<why>(?:[^']|'(?=\w))*)"
)

# What Slurm says when it refuses a job -> the setting, first match.
REFUSALS = (
    (
        r"accounting/qos policy",
        "the limits of the account or the QOS do not allow it: lower jobs (how many are submitted "
        "at a time) there, or what the rule asks for",
    ),
    (r"account", "set slurm_account there to one that `sacctmgr show associations` lists"),
    (r"partition", "set slurm_partition there to one that `sinfo` lists"),
    (r"qos", "set qos there to one that `sacctmgr show qos` lists"),
    (r"time limit", "set runtime (minutes) there to what the partition allows"),
    (
        r"node configuration|memory|gres|cpu count|node count",
        "no node has what the rule asks for: lower mem_mb, gpu, nodes or its threads there, or "
        "choose another slurm_partition",
    ),
    (
        r"unable to contact|socket timed out|connect failure|no answer within",
        "the controller did not answer: run the same command again when `sinfo` does",
    ),
    (r"", "the settings of jobs are there"),
)
# State of a job, and what its log says -> what happened and the remedy, first match.
ENDINGS = (
    (
        "OUT_OF_MEMORY",
        # srun says a task is out of memory; our own lines say it of a GPU, which needs no mem_mb.
        r"exceeded (job )?memory limit|oom.?kill|out-of-memory handler"
        r"|tasks? [\d,-]+: out of memory",
        "took more memory than it had asked for: raise mem_mb",
    ),
    ("TIMEOUT|DEADLINE", r"due to time limit", "reached its time limit: raise runtime (minutes)"),
    ("NODE_FAIL|BOOT_FAIL", r"due to node failure", "lost its node"),
    ("PREEMPTED", r"due to preemption", "was preempted"),
    ("CANCELLED", r"cancelled at|due to job requeue", "was cancelled"),
    # The sign matches nothing, because a job that is lost leaves no word in its log.
    (LOST, r"(?!)", "was forgotten by Slurm before it left its mark of a good end"),
)


def slurm_reason(message: str, logs: Sequence[Path]) -> str | None:
    """Return why Slurm refused or ended a job, or None where the job's own program failed.

    Args:
        message: what Snakemake's executor plugin says of the job.
        logs: the rule's log, where an srun of its command speaks, and Slurm's own of the job.
    """
    if refused := _REFUSED.search(message):
        # The last line says why if sbatch wrote it, and the first one if it did not.
        said = refused["why"].strip().splitlines() or [""]
        why = said[-1] if said[-1].startswith("sbatch") else said[0]
        why = why.removeprefix("sbatch: error: ").removeprefix("Batch job submission failed: ")
        whole = refused["why"].lower()
        remedy = next(remedy for sign, remedy in REFUSALS if re.search(sign, whole))
        return f"submission refused ({why}); {PROFILE}: {remedy}"
    if ended := _STATE.search(message):
        # The rule's command may not have begun, and have left a log of an attempt before.
        telling = logs if ended["state"] == "FAILED" else logs[-1:]
        end = "\n".join(line for log in telling for line in tail_lines(log)).lower()
        # Slurm may call a job FAILED whose own log says that it ran out of memory or time.
        for states, sign, what in ENDINGS:
            if re.fullmatch(states, ended["state"]) or re.search(sign, end):
                where = "" if what.startswith(("was", "lost")) else f" for this rule in {PROFILE}"
                return f"job {ended['number']} {what}{where}; run the same command to go on"
    return None
