"""What the jobs of a run asked for against what they used, rule by rule, and what would do.

From Snakemake's benchmark files; how long jobs waited comes from Slurm, as far as it remembers
them: its accounting where that runs, else its controller (for MinJobAge seconds).

A rule's request is wasteful where half of it would do: the memory of its largest job with half as
much again and what Snakemake itself takes of a job, or three times the time of its longest job. The
same holds for cores that were busy for less than half of the jobs' time.
"""

import math
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median

from threedrs.workflow.job_usage import JobRecord

SNAKEMAKE_MB = 400  # of its own processes in a cluster's job, which count there; measured
MEMORY_STEP, TIME_STEP = 500, 10  # MB, minutes: what would do is rounded up to these
SHORT = 5.0  # seconds; of a shorter job the memory is measured too rarely to advise on
REMEMBERED = "now-30days"  # how far back accounting is asked
_COMMENT = re.compile(r"\brule_(?P<rule>\w+?)(?:_wildcards_|['\"\s]|$)")


@dataclass(kw_only=True)
class RuleUse:
    """The jobs of one rule; seconds, MB and minutes. Lists have an entry a job."""

    rule: str
    jobs: list[JobRecord] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # seconds in the queue

    @property
    def memory(self) -> float:
        """MB of the largest job; 0: none was measured."""
        return max(job.memory for job in self.jobs)

    @property
    def longest(self) -> float:
        """Seconds of the longest job."""
        return max(job.seconds for job in self.jobs)

    @property
    def cores(self) -> float:
        """Cores that were busy, over all jobs' time."""
        seconds = sum(job.seconds for job in self.jobs)
        return sum(job.cpu_seconds for job in self.jobs) / seconds if seconds else 0.0

    @property
    def threads(self) -> int:
        """Cores that a job asked for; 0: not recorded."""
        return max(job.threads for job in self.jobs)

    def asked(self, resource: str) -> int | None:
        """The most that a job asked for of a resource; None: not recorded, or nothing."""
        found = [job.asked[resource] for job in self.jobs if resource in job.asked]
        return max(found, default=None)

    def enough(self) -> dict[str, int]:
        """Return what would do, of those requests that are wasteful, for a profile."""
        measured = max((job.memory for job in self.jobs if job.seconds >= SHORT), default=0)
        would_do = {
            "mem_mb": _up(1.5 * measured + SNAKEMAKE_MB, MEMORY_STEP) if measured else None,
            "runtime": _up(3 * self.longest / 60, TIME_STEP),
        }
        return {
            name: value
            for name, value in would_do.items()
            if value is not None and 2 * value <= (self.asked(name) or 0)
        }

    @property
    def idle_cores(self) -> bool:
        """Whether a job asked for several cores, half of which were idle."""
        return self.threads > 1 and 2 * self.cores <= self.threads and self.cores > 0


def _up(value: float, step: int) -> int:
    return step * math.ceil(value / step)


def rule_uses(jobs: Iterable[JobRecord], waits: dict[str, list[float]]) -> list[RuleUse]:
    """Return the rules, first those that left most memory times time unused."""
    rules: dict[str, RuleUse] = {}
    for job in jobs:
        use = rules.setdefault(job.rule, RuleUse(rule=job.rule, waits=waits.get(job.rule, [])))
        use.jobs.append(job)
    return sorted(rules.values(), key=_unused, reverse=True)


def _unused(use: RuleUse) -> float:
    """Return the megabytes times seconds that the jobs of a rule held and did not use."""
    return sum(max(0, job.asked.get("mem_mb", 0) - job.memory) * job.seconds for job in use.jobs)


def queue_waits(folder: Path) -> dict[str, list[float]]:
    """Return rule -> seconds that its jobs waited in Slurm's queue before they started.

    Args:
        folder: the jobs' working directory, where ``snakemake`` was called.
    """
    accounting = ("sacct", "-X", "-n", "-P", "-S", REMEMBERED)
    asked = (
        (*accounting, "-o", "Submit,Start,WorkDir,SubmitLine"),
        ("squeue", "-h", "-t", "all", "-o", "%V|%S|%Z|%k"),
    )
    for command in asked:
        waits = _waits(_lines(command), folder.resolve())
        if waits:
            return waits
    return {}


def _lines(command: tuple[str, ...]) -> list[str]:
    """Return what Slurm says; nothing where there is none, or no accounting."""
    if shutil.which(command[0]) is None:
        return []
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return []
    return said.stdout.splitlines() if said.returncode == 0 else []


def _waits(lines: list[str], folder: Path) -> dict[str, list[float]]:
    waits: dict[str, list[float]] = {}
    for line in lines:
        submit, start, place, text = [*line.split("|", 3), "", "", ""][:4]
        rule = _COMMENT.search(text)
        if rule is None or Path(place).resolve() != folder:
            continue
        try:
            seconds = datetime.fromisoformat(start) - datetime.fromisoformat(submit)
        except ValueError:  # it has not started
            continue
        waits.setdefault(rule["rule"], []).append(seconds.total_seconds())
    return waits


HEAD = (
    *("rule", "jobs", "cores", "busy", "mem_mb", "largest"),
    *("runtime min", "longest min", "GPUs", "waited s", "at most s"),
)


def table(uses: list[RuleUse]) -> list[list[str]]:
    """Return the rows of the table, its head first; a star marks what is wasteful."""
    rows = [list(HEAD)]
    for use in uses:
        enough = use.enough()
        rows.append(
            [
                use.rule,
                str(len(use.jobs)),
                _cell(use.threads or None, star=use.idle_cores),
                f"{use.cores:.1f}" if use.cores else "-",
                _cell(use.asked("mem_mb"), star="mem_mb" in enough),
                f"{use.memory:.0f}" if use.memory else "-",
                _cell(use.asked("runtime"), star="runtime" in enough),
                f"{use.longest / 60:.1f}",
                _cell(use.asked("gpu")),
                f"{median(use.waits):.0f}" if use.waits else "-",
                f"{max(use.waits):.0f}" if use.waits else "-",
            ]
        )
    return rows


def _cell(value: int | None, *, star: bool = False) -> str:
    return "-" if value is None else f"{value}{'*' if star else ''}"


def advice(uses: list[RuleUse]) -> list[str]:
    """Return lines for a profile's ``set-resources`` that ask for what would do."""
    return [
        f"  {use.rule}: {{{', '.join(f'{name}: {value}' for name, value in enough.items())}}}"
        for use in uses
        if (enough := use.enough())
    ]
