"""Why Slurm refused or ended jobs: one line a rule and reason, at the end of a run.

Snakemake's log says of a job only that Slurm refused it, or ended it with some state. The reason of
the latter stands in the job's own log of Slurm. To find both costs one pass over Snakemake's log
and the last 64 KiB of the log of each job that failed.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from threedrs.workflow.failure_causes import tail_lines
from threedrs.workflow.slurm_watch import LOST

PROFILE = "slurm/config.yaml"

# A failure with the lines up to the next one, or a good end.
_END = re.compile(
    r"^(Finished jobid: (?P<finished>\d+)\b"
    r"|Error in rule (?P<rule>\w+):\n(?P<lines>(?:(?!Error in rule |Finished jobid: ).*+\n?+)*+))",
    re.MULTILINE,
)
_JOB = re.compile(r"^    jobid: (?P<job>\d+)$", re.MULTILINE)
_LOGS = re.compile(r"^    log: (?P<logs>.*) \(check log file", re.MULTILINE)
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


def explain_failures(logs: Iterable[str | Path]) -> list[str]:
    """Return a line for each rule and reason for which Slurm refused or ended jobs.

    Args:
        logs: logs of the Snakemake process that submitted the jobs; a missing one counts as empty.
            Jobs that succeeded on a later attempt are excluded, and so are those whose own program
            failed, because its log says why.
    """
    present = [Path(log) for log in logs if Path(log).is_file()]
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in present)
    reasons: dict[str, tuple[str, str]] = {}  # job of Snakemake -> rule and reason
    for end in _END.finditer(text):
        job = _JOB.search(end["lines"] or "")
        if end["finished"]:  # it succeeded on a later attempt
            reasons.pop(end["finished"], None)
        elif job and (reason := _reason(end["lines"])):
            reasons[job["job"]] = (end["rule"], reason)
        elif job:  # it failed for a reason of its own
            reasons.pop(job["job"], None)
    counts = Counter(reasons.values())
    return [
        f"threedrs: Slurm: {rule}{f' ({count} jobs)' if count > 1 else ''}: {reason}"
        for (rule, reason), count in counts.items()
    ]


def _reason(text: str) -> str | None:
    if refused := _REFUSED.search(text):
        # The last line says why if sbatch wrote it, and the first one if it did not.
        said = refused["why"].strip().splitlines() or [""]
        why = said[-1] if said[-1].startswith("sbatch") else said[0]
        why = why.removeprefix("sbatch: error: ").removeprefix("Batch job submission failed: ")
        whole = refused["why"].lower()
        remedy = next(remedy for sign, remedy in REFUSALS if re.search(sign, whole))
        return f"submission refused ({why}); {PROFILE}: {remedy}"
    if ended := _STATE.search(text):
        logs = _LOGS.search(text)
        # The rule's log, where an srun of its command speaks, and Slurm's own of the job.
        paths = [Path(path) for path in logs["logs"].split(", ")] if logs else []
        if ended["state"] != "FAILED":  # the rule's command may not have begun, and left an old log
            paths = paths[-1:]
        end = "\n".join(line for path in paths for line in tail_lines(path)).lower()
        # Slurm may call a job FAILED whose own log says that it ran out of memory or time.
        for states, sign, what in ENDINGS:
            if re.fullmatch(states, ended["state"]) or re.search(sign, end):
                where = "" if what.startswith(("was", "lost")) else f" for this rule in {PROFILE}"
                return f"job {ended['number']} {what}{where}; run the same command to go on"
    return None
