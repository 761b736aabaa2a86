"""How the jobs stand that Snakemake gave to Slurm, so that a run never waits for a job for ever.

Version 2.8 of Snakemake's executor plugin waits without a word for a job that `squeue` or `sacct`
does not name: it may have ended and been forgotten between two looks (MinJobAge), or accounting may
be off. `patch_executor` puts a `JobWatch` in the place of the plugin's question. It asks

1. `squeue`, for all jobs at once; and for each job that this does not name:
2. the mark that the job leaves in Snakemake's folder when it ends well,
3. `scontrol`, which knows jobs that a site has given another name,
4. `sacct`, where accounting is on.

Of a job on another cluster it asks the controller of that cluster, which is known from what
`sbatch` or `sacct` said of the job. A job that none of them knows, in several answers of a
controller that does answer, is lost: it counts as failed, so that its retry or the next call makes
its results. While a controller does not answer, no job counts as anything. Whatever is waited for,
a line says so every few minutes.
"""

import asyncio
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from threedrs.errors import counted
from threedrs.workflow.processes import run_text

LOST = "ERROR"  # a state that the plugin counts as a failure, and that Slurm does not use
TELL_EVERY = 300.0  # seconds between two lines about what is waited for
LONGEST_SLEEP = 60.0  # seconds between two looks; the plugin's own 180 outlast what Slurm remembers
SOON = 5.0  # seconds between two looks for a job that is missing
ANSWERS = 3  # of the controller, none of which knows a job, before it is lost
_ENOUGH = 86400  # seconds for which the plugin shall believe that Slurm remembers jobs
_UNKNOWN = "not listed"  # no state of the plugin's, so it goes on waiting
# States that are final where accounting alone still knows the job.
_ENDINGS = ("COMPLETED", "BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL",
            "OUT_OF_MEMORY", "TIMEOUT")  # fmt: skip
# The plugin waits for Slurm to start such a job again, which it does not.
_CANCELLED = ("PREEMPTED", "REVOKED")


class _SilentError(Exception):
    """Slurm has not answered."""


@dataclass
class JobWatch:
    """What is known of the jobs of one Snakemake."""

    plugin: ModuleType
    executor: Any = None
    jobs: list[Any] = field(default_factory=list)  # those that have not ended
    # Job that Slurm does not name -> when each answer came that did not name it.
    missing: dict[str, list[float]] = field(default_factory=dict)
    clusters: dict[str, str] = field(default_factory=dict)  # number -> cluster, where one was named
    silent_since: float | None = None
    told: float = field(default_factory=time.monotonic)  # when the last line was said

    async def states(self) -> dict[str, str] | None:
        """Return the state of each job by its number, or None if Slurm does not answer."""
        rows = []
        for where in sorted({self._where(job) for job in self.jobs}):
            answer = await _ask(
                *("squeue", *where, "--noheader", "--states=all", "--format=%i|%T|%r"),
                f"--name={self.executor.run_uuid}",
            )
            if answer.returncode:
                self._say_silence(answer, where)
                return None
            rows += [line.strip().split("|", 2) for line in answer.stdout.splitlines()]
        self.silent_since = None
        whole = [row for row in rows if len(row) == 3]
        states, reasons = ({row[0]: row[column] for row in whole} for column in (1, 2))
        for job in self.jobs:
            number = job.external_jobid
            names = self.plugin._status_lookup_ids(number)  # a task of an array has two
            if any(name in states for name in names):
                self.missing.pop(number, None)
            else:
                states[number] = await self._state_of_missing(job)
        self._say_waiting(states, reasons)
        return states

    def _where(self, job: Any) -> tuple[str, ...]:
        """Return the option that names the cluster of a job, if it is another one."""
        cluster = self.clusters.get(job.external_jobid.partition("_")[0])
        return (f"--clusters={cluster}",) if cluster else ()

    async def _state_of_missing(self, job: Any) -> str:
        """Return the state of a job that `squeue` does not name."""
        mark, number = end_mark(self.executor, job.job), job.external_jobid
        where = self._where(job)
        # A listing and no test of the file: network file systems remember what was not there.
        if mark in mark.parent.iterdir():
            return "COMPLETED"
        if state := await self._controller_says(number, where):
            return state
        # Where accounting is off, or its database away, the controller's word holds.
        accounted = await _ask(
            *("sacct", *(where or ("--clusters=all",)), "-X", "--parsable2", "--noheader"),
            *("--format=State,Cluster", f"--jobs={number}", f"--name={self.executor.run_uuid}"),
        )
        told = re.match(r"(\w+)[^|]*\|(\S+)", accounted.stdout)  # or "CANCELLED by 1000|main"
        if told and told[1] in (*_ENDINGS, *_CANCELLED):
            return "CANCELLED" if told[1] in _CANCELLED else told[1]
        if told and not where:
            # It runs on a cluster that was not asked, or accounting alone believes that it runs.
            state = await self._controller_says(number, (f"--clusters={told[2]}",))
            if state not in (None, _UNKNOWN):
                self.clusters[number.partition("_")[0]] = told[2]
            if state:
                return state
        answers = self.missing.setdefault(number, [])
        answers.append(time.monotonic())
        # A file of another machine may be seen late, so the mark has as long as results have.
        patience = self.executor.workflow.execution_settings.latency_wait
        if len(answers) < ANSWERS or answers[-1] < answers[0] + patience:
            return _UNKNOWN
        self.missing.pop(number)
        self.executor.logger.warning(
            f"threedrs: Slurm: job {number} is in the memory of neither controller nor accounting, "
            "and has left no mark of a good end; it counts as failed"
        )
        return LOST

    async def _controller_says(self, number: str, where: tuple[str, ...]) -> str | None:
        """Return the state of a job by a cluster's controller; None if it knows no such job."""
        shown = await _ask("scontrol", *where, "--oneliner", "show", "job", number)
        if state := re.search(r"\bJobState=(\w+)", shown.stdout):
            self.missing.pop(number, None)
            return state[1]
        return None if "invalid job id" in shown.stderr.lower() else _UNKNOWN

    def _say_silence(
        self, answer: subprocess.CompletedProcess[str], where: tuple[str, ...]
    ) -> None:
        asked, shown = (" ".join((program, *where)) for program in ("squeue", "sinfo"))
        now = time.monotonic()
        if self.silent_since is None:
            self.silent_since = now
        elif now < self.told + TELL_EVERY:
            return
        self.told = now
        said = " ".join(answer.stderr.split()) or f"status {answer.returncode}"
        minutes = round((now - self.silent_since) / 60)
        lasting = f", for {counted(minutes, 'minute')} now" if minutes else ""
        self.executor.logger.warning(
            f"threedrs: Slurm: `{asked}` does not answer ({said[:200]}){lasting}; the jobs go on "
            f"and are asked about again; see whether `{shown}` answers; Ctrl-C ends this run"
        )

    def _say_waiting(self, states: dict[str, str], reasons: dict[str, str]) -> None:
        if time.monotonic() < self.told + TELL_EVERY:
            return
        self.told = time.monotonic()
        ids = [self.plugin._status_lookup_ids(job.external_jobid) for job in self.jobs]
        known = [next(name for name in names if name in states) for names in ids]
        reason = {name: f" ({why})" for name, why in reasons.items() if why != "None"}
        counts = Counter(f"{states[name]}{reason.get(name, '')}" for name in known)
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        self.executor.logger.warning(
            f"threedrs: Slurm: waiting for {counted(len(self.jobs), 'job')}: {told}"
        )


def end_mark(executor: Any, job: Any) -> Path:
    """Return the file that a job makes when it has ended well.

    It lies in the folder of this Snakemake, which goes with it.
    """
    return Path(executor.tmpdir, f"ended-well-{job.jobid}-{job.attempt}")


def patch_executor(plugin: ModuleType | None) -> None:
    """Let ``snakemake_executor_plugin_slurm`` ask a `JobWatch`, and submit by `slurm_submit`."""
    if plugin is None or hasattr(plugin.Executor, "has_job_watch"):
        return
    watch = JobWatch(plugin)
    check, run = plugin.Executor.check_active_jobs, plugin.Executor.run_jobs
    submit_command, validate = plugin.get_submit_command, plugin.validate_or_get_slurm_job_id

    async def query_job_status(command: str, logger: Any) -> tuple[dict[str, str], float]:
        started = time.monotonic()
        states = await watch.states()
        if states is None:
            raise _SilentError  # an answer of None would make the plugin forget its jobs
        return states, time.monotonic() - started

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        if not active_jobs:  # what is said of the next ones counts from their start
            watch.told = time.monotonic()
        watch.executor, watch.jobs = self, active_jobs
        try:
            async for job in check(self, active_jobs):
                yield job
        except _SilentError:  # nothing has been reported or handed on yet
            for job in active_jobs:
                yield job
        longest = SOON if watch.missing else LONGEST_SLEEP
        self.next_seconds_between_status_checks = min(
            self.next_seconds_between_status_checks, longest
        )

    def run_jobs(self: Any, jobs: list[Any]) -> None:
        # Threads submit, and those that are the first to ask at the same time would make a folder
        # each. A mark is looked for in the last one, so a job with its mark in another seems lost.
        _ = self.tmpdir
        run(self, jobs)

    def get_submit_command(*arguments: Any, **settings: Any) -> str:
        own = f"{shlex.quote(sys.executable)} -m threedrs.workflow.slurm_submit"
        return own + submit_command(*arguments, **settings).removeprefix("sbatch")

    def validate_or_get_slurm_job_id(number: str, said: str) -> str:
        found = str(validate(number, said))
        if cluster := said.strip().partition(";")[2]:  # which the plugin does not keep
            watch.clusters[found] = cluster
        return found

    # By the module's names, as the plugin looks them up at each call.
    replaced: Any = plugin
    replaced.query_job_status = query_job_status
    replaced.get_submit_command = get_submit_command
    replaced.validate_or_get_slurm_job_id = validate_or_get_slurm_job_id
    # How long Slurm remembers jobs no longer matters. The plugin asks so as to change to `sacct`.
    replaced.get_min_job_age = lambda: _ENOUGH
    plugin.Executor.check_active_jobs, plugin.Executor.run_jobs = check_active_jobs, run_jobs
    plugin.Executor.get_job_exec_suffix = lambda self, job: (
        f"touch {shlex.quote(str(end_mark(self, job)))}"
    )
    plugin.Executor.has_job_watch = True


async def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Return what a command of Slurm says, within a minute; status 1 where there is no answer."""
    try:
        return await asyncio.to_thread(run_text, *command, seconds=60.0)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
