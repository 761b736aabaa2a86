"""Why a job failed: what Slurm did to it and the setting to change, or the last thing it said.

Snakemake says of a job only that Slurm refused it, or ended it with some state. The reason of the
latter stands in the job's own log of Slurm.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from threedrs.workflow.slurm_watch import LOST

PROFILE = "slurm/config.yaml"
TAIL = 65536  # bytes of a log that are looked at
CLOCKS_APART = 60.0  # seconds that a file server's clock may be behind this machine's
NEARLY_FULL = 1 << 20  # bytes free, below which a log without a last word is put down to the disk
CLOCK = re.compile(r"^\d\d:\d\d:\d\d (?:INFO|WARNING|ERROR) ")

_STOPPED = re.compile(r"stopped by SIG(INT|USR1|TERM)")
# Lines that only say that something else has failed, or where.
_ECHOES = re.compile(r"^(launch: |srun: |slurmstepd: |train: rank \d+: lost another rank)")
_PROGRESS = re.compile(r"^\d\d:\d\d:\d\d INFO |: step \d+/\d+ |: \d+ of \d+ ")
_ERROR = re.compile(r"^\d\d:\d\d:\d\d ERROR ")
_STATE = re.compile(r"SLURM-job '(?P<number>\w+)' failed.*?SLURM status is: '(?P<state>\w+)'")
_REFUSED = re.compile(
    r"(?:sbatch failed\. The error message was '|submission failed with exception: )"
    r"(?P<why>(?:[^']|'(?=\w))*)"
)

# Slurm's programs are not installed here, or have not been told of a cluster.
_NO_SLURM = r"no such file or directory: '(sacct|sinfo|sbatch)'|configuration source"
_ELSEWHERE = (
    "run the same on a login node of the cluster, or on this machine alone with `snakemake --cores "
    "all` and no profile"
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
# State of a job, and what its log says -> what happened and the setting to raise, first match.
ENDINGS = (
    (
        "OUT_OF_MEMORY",
        # srun says a task is out of memory; our own lines say it of a GPU, which needs no mem_mb.
        r"exceeded (job )?memory limit|oom.?kill|out-of-memory handler"
        r"|tasks? [\d,-]+: out of memory",
        "took more memory than it had asked for",
        "mem_mb",
    ),
    ("TIMEOUT|DEADLINE", r"due to time limit", "reached its time limit", "runtime (minutes)"),
    ("NODE_FAIL|BOOT_FAIL", r"due to node failure", "lost its node", None),
    ("PREEMPTED", r"due to preemption", "was preempted", None),
    ("CANCELLED", r"cancelled at|due to job requeue", "was cancelled", None),
    # The sign matches nothing, because a job that is lost leaves no word in its log.
    (LOST, r"(?!)", "was forgotten by Slurm before it left its mark of a good end", None),
)


@dataclass(frozen=True)
class Cause:
    """Why a job failed, and where its log is."""

    job: str
    text: str
    log: str = ""  # empty where none tells more
    wanted: bool = False  # a stop that was asked for
    silent: bool = False  # nothing says why; after Ctrl-C that is a stop
    remedy: str = ""  # what to do, unless the job is tried again

    def __str__(self) -> str:
        return f"{self.text} (log: {self.log})" if self.log else self.text


def find_cause(job: str, logs: Sequence[Path], since: float, said: str = "") -> Cause:
    """Return why a job failed.

    Args:
        job: its rule and wildcards.
        logs: the rule's log, and after it Slurm's own of the job.
        since: when the job began, in seconds of `time.time`; older logs are of an attempt before.
        said: what Snakemake's executor plugin says of it.
    """
    if reason := _slurm_reason(said, logs):
        what, remedy = reason
        # Ctrl-C cancels jobs. What else Slurm does to them is not the user's wish.
        return Cause(job, f"Slurm: {what}", silent=what.endswith("was cancelled"), remedy=remedy)
    for log in logs:
        if lines := tail_lines(log, since):
            stops = [line for line in lines if _STOPPED.search(line)]
            errors = [line for line in lines if _ERROR.match(line)]
            own = [line for line in lines if not _ECHOES.match(line)]
            line = (stops or errors or own or lines)[-1]
            text = CLOCK.sub("", line).removesuffix(f" (log: {log})")
            text = re.sub(rf"^{re.escape(job.split()[0])}(?: [^:]*)?: ", "", text)
            if _PROGRESS.search(line) and not _ERROR.match(line):
                text = f'ended without a word after "{text}"; run the same command to go on'
                return Cause(job, text, str(log), silent=True)
            # A process that Ctrl-C ends in the middle of its imports has no better word.
            interrupted = line == "KeyboardInterrupt"
            wanted = bool(_STOPPED.search(line))
            return Cause(job, text, str(log), wanted=wanted, silent=interrupted)
    why = "ended without a word, as it does when memory runs out; run the same command again"
    folder = logs[0].parent if logs else Path()
    if folder.is_dir() and shutil.disk_usage(folder).free < NEARLY_FULL:
        why = f"the disk of {folder} is full; free space there, and run the same again"
    return Cause(job, why, str(logs[0]) if logs else "", silent=True)


def _slurm_reason(message: str, logs: Sequence[Path]) -> tuple[str, str] | None:
    """Return why Slurm refused or ended a job, and the remedy.

    It is None where the job's own program failed.
    """
    if refused := _REFUSED.search(message):
        # The last line says why if sbatch wrote it, and the first one if it did not.
        said = refused["why"].strip().splitlines() or [""]
        why = said[-1] if said[-1].startswith("sbatch") else said[0]
        why = why.removeprefix("sbatch: error: ").removeprefix("Batch job submission failed: ")
        whole = refused["why"].lower()
        if re.search(_NO_SLURM, whole):
            return "this machine belongs to no cluster of Slurm's", _ELSEWHERE
        remedy = next(remedy for sign, remedy in REFUSALS if re.search(sign, whole))
        return f"submission refused ({why})", f"{PROFILE}: {remedy}"
    if ended := _STATE.search(message):
        # In the rule's log an srun of its command speaks. But the command may not have begun, and
        # the log be of an attempt before.
        telling = logs if ended["state"] == "FAILED" else logs[-1:]
        end = "\n".join(line for log in telling for line in tail_lines(log)).lower()
        # Slurm may call a job FAILED whose own log says that it ran out of memory or time.
        for states, sign, what, setting in ENDINGS:
            if re.fullmatch(states, ended["state"]) or re.search(sign, end):
                change = f"raise {setting} for this rule in {PROFILE}; " if setting else ""
                return f"job {ended['number']} {what}", f"{change}run the same command to go on"
    return None


def tail_lines(log: Path, since: float = 0.0) -> list[str]:
    """Return the last lines of a log that was written to ``since`` then, without empty ones."""
    try:
        if log.stat().st_mtime < since - CLOCKS_APART:
            return []
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    # A progress bar rewrites its line.
    lines = (line.rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return [line for line in lines if line]
