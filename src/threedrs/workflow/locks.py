"""One writer a result, also after a kill: jobs end with their Snakemake, and claim what they write.

A Snakemake that is killed cannot end its jobs; left alone, they would go on and write beside those
of the next Snakemake. So each job looks twice a second whether the Snakemake that started it lives,
and ends itself and its own processes if not. Where that does not help (a Slurm job whose submitter
was killed goes on, rightly), a job waits a little for the one before it, and then says who it is.
"""

import ctypes
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from threedrs.errors import MachineError, write_problem

STARTER = "THREEDRS_SNAKEMAKE"  # machine, process namespace, process and its start
SET_DEATH_SIGNAL = 1  # of Linux's prctl
LOOK_EVERY = 0.5  # seconds; a Snakemake takes longer than that to start its first job
PATIENCE = 30.0  # seconds that a job waits for another one that writes the same


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _started(process: int) -> str | None:
    """Return when the process started, in the kernel's ticks; None: it is not, or no more."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _place() -> str:
    """Return this machine and its numbering of processes (a container may have its own)."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def name_snakemake() -> None:
    """Tell the jobs that this process will start who started them."""
    started = _started(os.getpid())
    if started is not None:  # elsewhere than on Linux there is no /proc, and jobs do not look
        os.environ[STARTER] = f"{_place()} {os.getpid()} {started}"


def end_with_snakemake() -> None:
    """Let this job end when the Snakemake that started it is gone; without one, do nothing.

    A job of another machine or container than that Snakemake's does not look.
    """
    place, _, started = os.environ.get(STARTER, "").rpartition(" ")
    place, _, number = place.rpartition(" ")
    if not place or place != _place():
        return
    starter = int(number)
    if _started(starter) != started:
        _end()
    watch = threading.Thread(target=_watch, args=(starter, started), daemon=True)
    watch.start()


def _watch(starter: int, started: str) -> None:
    while _started(starter) == started:
        time.sleep(LOOK_EVERY)
    _end()


def _end() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def claimed(result: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Be the only process that writes ``result`` for the time of the block.

    The claim is a lock on a hidden file beside the result; it ends with the process, however that
    ends. On a file system without locks nothing is claimed.

    Raises:
        MachineError: another process still holds it after ``patience`` seconds, and the message
            names that process; or the hidden file cannot be made.
    """
    place = result.with_name(f".{result.name}.lock")
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        lock = place.open("a+")
    except OSError as error:
        raise MachineError(f"{place}: {write_problem(error)}") from error
    with lock:
        if _is_locked(lock, patience):
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise MachineError(
                f"{result}: {holder} is at work on it; wait until that has ended, or end it, and "
                "run the same command again"
            )
        with suppress(OSError):  # a full disk; the text is for people
            lock.truncate(0)
            job = os.environ.get("SLURM_JOB_ID")
            slurm = f" (Slurm job {job})" if job else ""
            lock.write(f"process {os.getpid()} on {socket.gethostname()}{slurm}")
            lock.flush()
        yield


def _is_locked(lock: TextIO, patience: float) -> bool:
    """Lock the file; return whether another process still has it after ``patience`` seconds."""
    give_up = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                return True
            time.sleep(0.1)
        except OSError:  # no locks on this file system
            return False
        else:
            return False
