"""Why a job failed, as far as its log tells: the last thing that it said itself."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TAIL = 65536  # bytes of a log that are looked at
CLOCKS_APART = 60.0  # seconds that a file server's clock may be behind this machine's
NEARLY_FULL = 1 << 20  # bytes free, below which a log without a last word is put down to the disk
CLOCK = re.compile(r"^\d\d:\d\d:\d\d (?:INFO|WARNING|ERROR) ")

_STOPPED = re.compile(r"stopped by SIG(INT|USR1|TERM)")
# Lines that only say that something else has failed, or where.
_ECHOES = re.compile(r"^(launch: |srun: |slurmstepd: |train: rank \d+: lost another rank)")
_PROGRESS = re.compile(r"^\d\d:\d\d:\d\d INFO |: step \d+/\d+ |: \d+ of \d+ ")
_ERROR = re.compile(r"^\d\d:\d\d:\d\d ERROR ")


@dataclass(frozen=True)
class Cause:
    """Why a job failed, and where its log is."""

    job: str
    text: str
    log: str = ""  # empty where none tells more
    wanted: bool = False  # a stop that was asked for
    silent: bool = False  # the log does not say why

    def __str__(self) -> str:
        return f"{self.text} (log: {self.log})" if self.log else self.text


def find_cause(job: str, logs: Iterable[Path], since: float) -> Cause:
    """Return why a job failed, which is the last thing that it said itself."""
    # Snakemake's own log comes first, and Slurm's of the job after it.
    logs = [*logs]
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
            return Cause(job, text, str(log), wanted=bool(_STOPPED.search(line)))
    why = "ended without a word, as it does when memory runs out; run the same command again"
    folder = logs[0].parent if logs else Path()
    if folder.is_dir() and shutil.disk_usage(folder).free < NEARLY_FULL:
        why = f"the disk of {folder} is full; free space there, and run the same again"
    return Cause(job, why, str(logs[0]) if logs else "", silent=True)


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
