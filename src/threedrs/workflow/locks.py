"""One writer a result: a job locks what it writes, and a killed Snakemake's lock is removed.

Where a job does not end with its Snakemake (`threedrs.workflow.processes`; a Slurm job whose
submitter was killed goes on, rightly), the next one waits a little for it and then says who it is.
"""

import atexit
import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from threedrs.errors import MachineError, write_problem

PATIENCE = 30.0  # seconds that a job waits for another one that writes the same
_held: list[BinaryIO] = []  # open as long as the process lives; closing gives the lock back


@contextmanager
def exclusive(result: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Let the block run only while no other process writes ``result``.

    On a file system without locks the block runs in any case.

    Raises:
        MachineError: another process still holds it after ``patience`` seconds, and the message
            names that process; or the lock file cannot be made.
    """
    # The kernel locks a hidden file beside the result, and unlocks it when this process ends,
    # however that ends. The file stays: were it removed, a process that has it open would hold a
    # lock that the next one, which makes a new file, does not see.
    path = result.with_name(f".{result.name}.lock")
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        raise MachineError(f"{path}: {write_problem(error)}") from error
    give_up = time.monotonic() + patience
    with lock:
        while (locked := _is_locked(lock)) and time.monotonic() < give_up:
            time.sleep(0.1)
        if locked:
            # Opened to append, so what the holder wrote about itself is still there.
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


def _is_locked(lock: TextIO) -> bool:
    """Lock the file, if no other process has it; return whether one has."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        return False
    return False


def remove_dead_lock(state: Path) -> str | None:
    """Remove what a killed Snakemake locked; return a line about what was found, or None.

    If a Snakemake on another machine did not take its line away, only the user can say that it is
    gone, by ``snakemake --unlock``.
    """
    # Snakemake's own lock does not say whose it is, and outlives a kill. So each Snakemake here
    # also holds a kernel lock on the file ``alive``, which ends with its process, and writes its
    # machine and process there.
    host, locks = socket.gethostname(), state / "locks"
    try:
        state.mkdir(exist_ok=True)
        alive = (state / "alive").open("ab", buffering=0)
    except OSError:
        return None  # Snakemake reports a folder that it cannot write to
    found = None
    try:
        # Who gets this lock alone knows that the others on this machine are gone. Kernel locks of
        # other machines may not be seen from here, so their lines count.
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holders = [line.split() for line in (state / "alive").read_text().splitlines()]
        others = [words for words in holders if words and words[0] != host]
        if "--unlock" in sys.argv:
            others = []
        elsewhere = sorted({words[0] for words in others})
        if locks.is_dir() and any(locks.iterdir()):
            if elsewhere:
                found = (
                    f"the lock in {locks} is of a Snakemake on {', '.join(elsewhere)}; if none "
                    "runs there any more, call snakemake --unlock, and then the same again"
                )
            else:
                shutil.rmtree(locks, ignore_errors=True)
                found = f"removed the lock that a killed Snakemake left in {locks}"
        alive.truncate(0)
        alive.write("".join(f"{' '.join(words)}\n" for words in others).encode())
    except BlockingIOError:
        pass  # another one runs; whether they get in each other's way is for Snakemake to say
    except OSError:  # no locks on this file system
        alive.close()
        return None
    # Shared, as several Snakemakes may run here on different targets: none of them is dead.
    fcntl.flock(alive, fcntl.LOCK_SH)
    line = f"{host} {os.getpid()}"
    with suppress(OSError):
        alive.write(f"{line}\n".encode())
    _held.append(alive)
    atexit.register(_leave, alive, state / "alive", line)
    return found


def _leave(alive: BinaryIO, path: Path, line: str) -> None:
    """Remove this process's line, unless another Snakemake runs, which may be writing its own."""
    with suppress(OSError):
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        others = [other for other in path.read_text().splitlines() if other != line]
        alive.truncate(0)
        alive.write("".join(f"{other}\n" for other in others).encode())
