"""What is known of a run of the workflow from the events that Snakemake logs.

A `RunState` takes the events of Snakemake's logger plugins one by one and holds the jobs by stage,
their causes where they failed, and what was warned of. `threedrs.workflow.run_screen` shows it.
"""

import re
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING, LogRecord
from pathlib import Path
from typing import Any

from threedrs.workflow.failure_causes import CLOCK, CLOCKS_APART, Cause, find_cause, tail_lines

# Stage -> its rules, in the order in which they run.
STAGES = {
    "downloads": ("download",),
    "demo data": ("demo_data",),
    "scenes": (
        *("candidates", "voxels", "boxes", "build_scenes", "build_captures"),
        *("check_scenes", "check_limit", "scene_facts", "scene_report"),
    ),
    "features": ("extract_features",),
    "instructions": ("convert_instructions", "balance"),
    "training": ("run_config", "train"),
    "predictions": ("predict", "answer_questions"),
    "scores": ("score", "trivial_answers", "awareness_of_run"),
    "report": ("aggregate", "build_report"),
}
STAGE_OF = {rule: stage for stage, rules in STAGES.items() for rule in rules}
# Rules that only name results, which nobody counts as jobs.
TARGET_RULES = {
    *("all", "scenes", "features", "instructions", "models"),
    *("scores", "answers", "awareness", "report"),
}
MOST_NAMES = 10  # jobs that one line names
SHOWN = "shown"  # attribute of a record that a rule file logs for the user to see

_OWN_PREFIX = re.compile(r"^(train|predict): ")
_ESTIMATES = (
    (re.compile(r"ETA ([\d.]+) min"), 60.0),
    (re.compile(r"([\d.]+) s left"), 1.0),
    (re.compile(r"([\d.]+) min left"), 60.0),
)
# Exceptions with which Snakemake repeats what the event of a failed job has said.
_REPEATED = {"CalledProcessError", "RuleException"}
# Errors of which a job's own event says more. That of Slurm's plugin comes with a traceback.
_SAID_OF_JOBS = ("Exiting because", "Exception in run_job for rule ")
_LAST_WORD = "At least one job did not complete successfully."


@dataclass
class Job:
    """A job that has been started or submitted."""

    number: int
    rule: str
    name: str  # rule and wildcards
    logs: list[Path]
    started: float  # seconds of `time.time`
    ended: float | None = None
    _seen: tuple[int, int] | None = None  # date and size of the log at the last look
    _last: str = ""

    def seconds(self, now: float) -> float:
        """Return how long it has run, in seconds."""
        return (self.ended or now) - self.started

    def last_line(self) -> str:
        """Return the last line of its log, without its time of day and kind, or nothing."""
        for log in self.logs[:1]:
            with suppress(OSError):
                status = log.stat()
                if status.st_mtime < self.started - CLOCKS_APART:
                    continue
                # Asked for twice a second, of a log that may lie on a slow file server.
                if (now := (status.st_mtime_ns, status.st_size)) != self._seen:
                    lines = tail_lines(log, self.started)
                    self._last = _OWN_PREFIX.sub("", CLOCK.sub("", lines[-1])) if lines else ""
                    self._seen = now
        return self._last


@dataclass
class RunState:
    """The jobs of a run by stage, and what went wrong."""

    planned: Counter[str] = field(default_factory=Counter)  # rule -> jobs to run
    done: Counter[str] = field(default_factory=Counter)  # rule -> jobs that ended well
    seconds: dict[str, float] = field(default_factory=dict)  # rule -> seconds of these
    running: dict[int, Job] = field(default_factory=dict)
    causes: dict[int, Cause] = field(default_factory=dict)  # job -> why it failed
    # Stage -> seconds in which at least one of its jobs ran, up to when none did.
    worked: dict[str, float] = field(default_factory=dict)
    working: dict[str, float] = field(default_factory=dict)  # stage -> since when jobs of it run
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # beside those of jobs
    started: float = field(default_factory=time.time)
    remote: bool = False  # jobs go to a cluster
    nothing_to_do: bool = False
    stopping: bool = False  # Snakemake was asked to stop
    prefix: str = ""  # of the names of rules, where another workflow uses them as a module

    def own(self, rule: str) -> str:
        """Return the name of a rule as this workflow has it."""
        return rule.removeprefix(self.prefix)

    def take(self, record: LogRecord) -> str | None:
        """Take an event; return a line for the user where one is due at once, or None."""
        event, fields = getattr(record, "event", None), vars(record)
        match event:
            case "run_info":
                stats = {self.own(rule): n for rule, n in fields["stats"].items()}
                del stats["total"]
                made = {rule: n for rule, n in stats.items() if rule not in TARGET_RULES}
                self.planned = Counter(made or stats)  # a target alone is run by --force
                self.started = record.created
            case "resources_info":
                self.remote = self.remote or "nodes" in fields
            case "job_info":
                self._start(fields, record.created)
            case "job_finished":
                self._finish(fields["job_id"], record.created)
            case "job_error":
                return self._fail(fields)
            case "error":
                # Snakemake's own end after Ctrl-C is a traceback now and then.
                known = self.stopped or fields.get("exception") in _REPEATED
                if not known and _LAST_WORD not in str(record.msg):
                    self.errors.append(str(record.msg))
            case None:
                return self._message(record)
        return None

    def _start(self, fields: Mapping[str, Any], now: float) -> None:
        rule, number = self.own(fields["rule_name"]), fields["jobid"]
        if rule in TARGET_RULES and rule not in self.planned:
            return
        name = " ".join([rule, *map(str, (fields["wildcards"] or {}).values())])
        self.running[number] = Job(number, rule, name, [*map(Path, fields["log"] or [])], now)
        self.working.setdefault(stage_of(rule), now)

    def _finish(self, number: int, now: float) -> None:
        job = self.running.pop(number, None)
        if job is None:
            return
        job.ended = now
        self.done[job.rule] += 1
        if self.done == self.planned:  # what was said then is of attempts that were repeated
            self.errors.clear()
        self.seconds[job.rule] = self.seconds.get(job.rule, 0.0) + job.seconds(now)
        self._pause(stage_of(job.rule), now)
        for line in [line for log in job.logs for line in tail_lines(log, job.started)]:
            if " WARNING " in line[:20]:
                self.warnings.append(f"{job.name}: {CLOCK.sub('', line)}")

    def _fail(self, fields: Mapping[str, Any]) -> str:
        number = fields["jobid"]
        job = self.running.pop(number, None)
        name = job.name if job else self.own(str(fields["rule_name"]))
        logs = [*map(Path, fields["log"] or [])]
        said = fields.get("rule_msg") or ""
        cause = find_cause(name, logs, job.started if job else 0.0, said)
        if cause.silent and self.stopped:  # Ctrl-C ends jobs that have no more to say
            text = "stopped; run the same command to go on"
            cause = replace(cause, text=text, remedy="", wanted=True)
        if job:
            self._pause(stage_of(job.rule), time.time())
        self.causes[number] = cause
        return f"{name}: {'stopped' if cause.wanted else 'failed'}"

    def _pause(self, stage: str, now: float) -> None:
        """Add up a stage's time if none of its jobs runs any more."""
        # Jobs of one stage may run far apart: a run's settings are written before the first scene.
        if not self.running_in(stage) and stage in self.working:
            self.worked[stage] = self.took(stage, now)
            del self.working[stage]

    def _message(self, record: LogRecord) -> str | None:
        text = str(record.msg or "").strip()
        if text.startswith(_SAID_OF_JOBS):
            return None
        if record.levelno > WARNING:
            self.errors += [line for line in text.splitlines() if line not in self.errors]
        elif record.levelno == WARNING and text:
            if text.startswith("threedrs: "):  # Snakemake's own are said once
                self.warnings.append(text)
            return text
        elif record.levelno == INFO:
            if text.startswith("Nothing to be done"):
                self.nothing_to_do = True
            if again := re.match(r"Trying to restart job (\d+)", text):
                return self._retry(int(again[1]))
            if text.startswith(
                ("Terminating processes on user request", "Will exit after finishing")
            ):
                # Snakemake waits without naming the jobs, and says so anew at each that ends.
                told, self.stopping = self.stopping, True
                return None if told else f"stopping{self.waits}"
            return text if getattr(record, SHOWN, False) else None
        return None

    def _retry(self, number: int) -> str:
        if cause := self.causes.pop(number, None):
            return f"{cause.job}: tried again after: {cause}"
        # Snakemake has no event for a job whose outputs did not appear, and has just said so.
        why = self.errors.pop() if self.errors else "its results are not whole"
        job = self.running.pop(number, None)
        if job:
            self._pause(stage_of(job.rule), time.time())
        name = job.name if job else f"job {number}"
        return f"{name}: tried again after: {why.removeprefix('threedrs: error: ')}"

    @property
    def stopped(self) -> bool:
        """Whether a stop was asked for, of the run or of a job that was not tried again."""
        return self.stopping or any(cause.wanted for cause in self.causes.values())

    @property
    def waits(self) -> str:
        """The clause that names the jobs that still run, the first of many, or nothing."""
        names = [job.name for job in self.running.values()]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return f"; waiting for {', '.join(names[:MOST_NAMES])}{more} to end" if names else ""

    def said(self, job: Job) -> str:
        """Return the last line of a running job's log, or where on a cluster it is."""
        line = job.last_line()
        return "in the queue" if self.remote and job.logs and job._seen is None else line

    # What the stages are at

    def stages(self) -> list[str]:
        """Return the stages that have something to do, in order."""
        return [stage for stage in (*STAGES, "other") if self.count(self.planned, stage)]

    @staticmethod
    def count(jobs: Mapping[str, int], stage: str) -> int:
        """Return how many of the ``jobs`` by rule belong to a stage."""
        return sum(n for rule, n in jobs.items() if stage_of(rule) == stage)

    def took(self, stage: str, now: float) -> float:
        """Return the seconds in which at least one job of a stage ran, up to now."""
        return self.worked.get(stage, 0.0) + now - self.working.get(stage, now)

    def running_in(self, stage: str) -> list[Job]:
        """Return the jobs of a stage that run."""
        return [job for job in self.running.values() if stage_of(job.rule) == stage]

    def status(self, stage: str) -> str:
        """Return done, runs, failed or waits."""
        if self.count(self.done, stage) == self.count(self.planned, stage):
            return "done"
        if self.running_in(stage):
            return "runs"
        names = {cause.job.split()[0] for cause in self.causes.values()}
        return "failed" if any(stage_of(rule) == stage for rule in names) else "waits"

    def time_left(self, stage: str) -> float | None:
        """Return the seconds that a stage still takes, if its jobs so far tell."""
        running = self.running_in(stage)
        own = [left for job in running if (left := estimate(job.last_line())) is not None]
        waiting = 0.0
        for rule in {rule for rule in self.planned if stage_of(rule) == stage}:
            now = sum(job.rule == rule for job in running)
            more = self.planned[rule] - self.done[rule] - now
            if more <= 0:
                continue
            if not self.done[rule]:
                return None
            waiting += more * self.seconds[rule] / self.done[rule]
        if running and not own and not waiting:
            return None
        return max(own, default=0.0) + waiting / max(1, len(running))


def stage_of(rule: str) -> str:
    """Return the stage of a rule; those that download a file have a number each."""
    return "downloads" if rule.startswith("download_") else STAGE_OF.get(rule, "other")


def estimate(line: str) -> float | None:
    """Return the seconds left that a job says in a line of its log."""
    for pattern, unit in _ESTIMATES:
        if found := pattern.search(line):
            return float(found[1]) * unit
    return None


def duration(seconds: float) -> str:
    """Return a length of time as people say it, e.g. ``41 s``, ``6 min 3 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
