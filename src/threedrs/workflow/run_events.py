"""What is known of a run of the workflow from the events that Snakemake logs.

A `RunState` takes the events of Snakemake's logger plugins one by one and holds the jobs by stage,
their causes where they failed, and what was warned of. `threedrs.workflow.run_screen` shows it.
"""

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING, LogRecord
from pathlib import Path
from typing import Any

# Stage -> its rules, in the order in which they run.
STAGES = {
    "downloads": ("download",),
    "demo data": ("demo_data",),
    "scenes": (
        *("candidates", "voxels", "boxes", "build_scenes", "check_scenes", "check_limit"),
        *("scene_facts", "scene_report"),
    ),
    "features": ("extract_features",),
    "instructions": ("convert_instructions", "balance"),
    "training": ("run_config", "train"),
    "predictions": ("predict",),
    "scores": ("score", "trivial_answers", "awareness_of_run"),
    "report": ("aggregate", "build_report"),
}
STAGE_OF = {rule: stage for stage, rules in STAGES.items() for rule in rules}
TAIL = 65536  # bytes of a log that are looked at
SHOWN = "shown"  # attribute of a record that a rule file logs for the user to see
NEARLY_FULL = 1 << 20  # bytes free, below which a log without a last word is put down to the disk

_STOPPED = re.compile(r"stopped by SIG(INT|USR1|TERM)")
# Lines that only say that something else has failed, or where.
_ECHOES = re.compile(r"^(launch: |srun: |slurmstepd: |train: rank \d+: lost another rank)")
_CLOCK = re.compile(r"^\d\d:\d\d:\d\d (?:INFO|WARNING|ERROR) ")
_OWN_PREFIX = re.compile(r"^(train|predict): ")
_ESTIMATES = (
    (re.compile(r"ETA ([\d.]+) min"), 60.0),
    (re.compile(r"([\d.]+) s left"), 1.0),
    (re.compile(r"([\d.]+) min left"), 60.0),
)
_PROGRESS = re.compile(r"^\d\d:\d\d:\d\d INFO |: step \d+/\d+ |: \d+ of \d+ ")
# Exceptions with which Snakemake repeats what the event of a failed job has said.
_REPEATED = {"CalledProcessError", "RuleException", "CalledProcessException"}
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

    def seconds(self, now: float) -> float:
        """Return how long it has run, in seconds."""
        return (self.ended or now) - self.started

    def last_line(self) -> str:
        """Return the last line of its log, without its time of day and kind, or nothing."""
        lines = [line for log in self.logs[:1] for line in tail_lines(log, self.started)]
        return _OWN_PREFIX.sub("", _CLOCK.sub("", lines[-1])) if lines else ""


@dataclass(frozen=True)
class Cause:
    """Why a job failed, and where its log is."""

    job: str
    text: str
    log: str
    wanted: bool = False  # a stop that was asked for
    silent: bool = False  # the log does not say why


@dataclass
class RunState:
    """The jobs of a run by stage, and what went wrong."""

    planned: Counter[str] = field(default_factory=Counter)  # rule -> jobs to run
    done: Counter[str] = field(default_factory=Counter)  # rule -> jobs that ended well
    seconds: dict[str, float] = field(default_factory=dict)  # rule -> seconds of these
    running: dict[int, Job] = field(default_factory=dict)
    causes: dict[int, Cause] = field(default_factory=dict)  # job -> why its last attempt failed
    spans: dict[str, list[float]] = field(default_factory=dict)  # stage -> first start, last end
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # beside those of jobs
    started: float = field(default_factory=time.time)
    remote: bool = False  # jobs go to a cluster
    nothing_to_do: bool = False
    stopping: bool = False  # a stop was asked for

    def take(self, record: LogRecord) -> str | None:
        """Take an event; return a line for the user where one is due at once, or None."""
        event, fields = getattr(record, "event", None), vars(record)
        match event:
            case "run_info":
                self.planned = Counter(
                    {rule: n for rule, n in fields["stats"].items() if rule != "total"}
                )
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
                self._error(str(record.msg), fields.get("exception"))
            case None:
                return self._message(record)
        return None

    def _start(self, fields: Mapping[str, Any], now: float) -> None:
        rule = fields["rule_name"]
        name = " ".join([rule, *map(str, (fields["wildcards"] or {}).values())])
        logs = [Path(log) for log in fields["log"] or []]
        self.running[fields["jobid"]] = Job(fields["jobid"], rule, name, logs, now)
        self.spans.setdefault(stage_of(rule), [now, now])

    def _finish(self, number: int, now: float) -> None:
        self.causes.pop(number, None)  # of an attempt before
        job = self.running.pop(number, None)
        if job is None:
            return
        job.ended = now
        self.done[job.rule] += 1
        self.seconds[job.rule] = self.seconds.get(job.rule, 0.0) + job.seconds(now)
        self.spans[stage_of(job.rule)][1] = now
        for line in [line for log in job.logs for line in tail_lines(log, job.started)]:
            if " WARNING " in line[:20]:
                self.warnings.append(f"{job.name}: {_CLOCK.sub('', line)}")

    def _fail(self, fields: Mapping[str, Any]) -> str:
        number = fields["jobid"]
        job = self.running.pop(number, None)
        name = job.name if job else str(fields["rule_name"])
        logs = [Path(log) for log in fields["log"] or []]
        cause = find_cause(name, logs, job.started if job else 0.0)
        if cause.silent and self.stopping:  # Ctrl-C ends jobs that have no more to say
            cause = replace(cause, text="stopped; run the same command to go on", wanted=True)
        if job:
            self.spans[stage_of(job.rule)][1] = time.time()
        self.causes[number] = cause
        self.stopping = self.stopping or cause.wanted
        return f"{name}: {'stopped' if cause.wanted else 'failed'}"

    def _error(self, text: str, exception: str | None) -> None:
        # Snakemake's own end after Ctrl-C is a traceback now and then.
        if self.stopping or exception in _REPEATED or _LAST_WORD in text:
            return
        self.errors.append(text)

    def _message(self, record: LogRecord) -> str | None:
        text = str(record.msg or "").strip()
        if record.levelno > WARNING and not text.startswith("Exiting because"):
            self.errors += [line for line in text.splitlines() if line not in self.errors]
        elif record.levelno == WARNING and text:
            self.warnings.append(text)
            return text
        elif record.levelno == INFO:
            if text.startswith("Nothing to be done"):
                self.nothing_to_do = True
            if again := re.match(r"Trying to restart job (\d+)", text):
                cause = self.causes[int(again[1])]
                return f"{cause.job}: tried again after: {cause.text} (log: {cause.log})"
            self.stopping = self.stopping or text.startswith(
                ("Terminating processes on user request", "Will exit after finishing")
            )
            return text if getattr(record, SHOWN, False) else None
        return None

    def said(self, job: Job) -> str:
        """Return the last line of a running job's log, or where on a cluster it is."""
        begun = any(log.is_file() and log.stat().st_mtime > job.started - 60 for log in job.logs)
        return job.last_line() or ("in the queue" if self.remote and not begun else "")

    # What the stages are at

    def stages(self) -> list[str]:
        """Return the stages that have something to do, in order."""
        return [stage for stage in (*STAGES, "other") if self.count(self.planned, stage)]

    @staticmethod
    def count(jobs: Mapping[str, int], stage: str) -> int:
        """Return how many of the ``jobs`` by rule belong to a stage."""
        return sum(n for rule, n in jobs.items() if stage_of(rule) == stage)

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


def tail_lines(log: Path, since: float) -> list[str]:
    """Return the last lines of a log that was written to ``since`` then, without empty ones."""
    try:
        # A file server's clock may be some seconds behind this machine's.
        if log.stat().st_mtime < since - 60:
            return []
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    # A progress bar rewrites its line.
    lines = (line.rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return [line for line in lines if line]


def find_cause(job: str, logs: Iterable[Path], since: float) -> Cause:
    """Return why a job failed, which is the last thing that it said itself."""
    # Snakemake's own log comes first, and Slurm's of the job after it.
    logs = [*logs]
    for log in logs:
        if lines := tail_lines(log, since):
            line = _telling(lines)
            text = _CLOCK.sub("", line).removesuffix(f" (log: {log})")
            text = re.sub(rf"^{re.escape(job.split()[0])}(?: [^:]*)?: ", "", text)
            if _PROGRESS.search(line):
                text = f'ended without a word after "{text}"; run the same command to go on'
                return Cause(job, text, str(log), silent=True)
            return Cause(job, text, str(log), wanted=bool(_STOPPED.search(line)))
    why = "ended without a word, as it does when memory runs out; run the same command again"
    folder = logs[0].parent if logs else Path()
    if folder.is_dir() and shutil.disk_usage(folder).free < NEARLY_FULL:
        why = f"the disk of {folder} is full; free space there, and run the same again"
    return Cause(job, why, str(logs[0]) if logs else "none", silent=True)


def _telling(lines: list[str]) -> str:
    """Return the line of a failed job's log that says why."""
    stops = [line for line in lines if _STOPPED.search(line)]
    errors = [line for line in lines if " ERROR " in line[:20]]
    own = [line for line in lines if not _ECHOES.match(line)]
    return (stops or errors or own or lines)[-1]


def duration(seconds: float) -> str:
    """Return a length of time as people say it, e.g. ``41 s``, ``6 min 3 s``, ``2 h 5 min``."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    large, unit, small, part = (whole // 60, "min", whole % 60, "s")
    if whole >= 3600:
        large, unit, small, part = (whole // 3600, "h", whole % 3600 // 60, "min")
    return f"{large} {unit} {small} {part}" if small else f"{large} {unit}"
