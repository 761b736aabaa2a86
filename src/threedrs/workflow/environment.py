"""What the jobs of the workflow inherit from the Snakemake process, and hear through it."""

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import BinaryIO

_held: list[BinaryIO] = []  # open as long as the process lives; closing gives the lock back


def use_this_checkout(root: Path) -> None:
    """Let jobs find this interpreter, the tools beside it (ninja), and the code under ``root``.

    So the workflow runs the same whether the virtual environment is activated or not, and always
    runs the modules whose checksums it tracks: they come first on PYTHONPATH.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    own, others = str(Path(root, "src").resolve()), os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (own, others)))


def hand_on_stop_warning() -> None:
    """Let this Snakemake process hand SIGUSR1 on to all processes below it.

    Slurm sends the warning before a job's time limit to the processes that it started itself, which
    is Snakemake, and, depending on how it tracks processes, to those below, or not. Without this,
    SIGUSR1 would end Snakemake.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _hand_on)


def _hand_on(number: int, frame: object) -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def remove_dead_lock(state: Path) -> str | None:
    """Remove the lock of a killed Snakemake; return a line about what was found, or None.

    Snakemake's own lock does not say whose it is and outlives a kill. So each Snakemake here also
    holds a file in the kernel's way, which ends with its process: who can have that file alone
    knows that the others are gone. Where some did not end by themselves on other machines, whose
    locks may not be seen from here, it is left to the user to say so, by ``snakemake --unlock``:
    only that forgets them.

    Args:
        state: Snakemake's folder, ``.snakemake`` in the working directory.
    """
    host, locks = socket.gethostname(), state / "locks"
    try:
        state.mkdir(exist_ok=True)
        alive = (state / "alive").open("ab", buffering=0)
    except OSError:
        return None  # Snakemake says it
    found = None
    try:
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
    fcntl.flock(alive, fcntl.LOCK_SH)
    line = f"{host} {os.getpid()}"
    with contextlib.suppress(OSError):
        alive.write(f"{line}\n".encode())
    _held.append(alive)
    atexit.register(_leave, alive, state / "alive", line)
    return found


def _leave(alive: BinaryIO, path: Path, line: str) -> None:
    """Take this process's line away, unless others are here: they may be writing theirs."""
    with contextlib.suppress(OSError):
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        others = [other for other in path.read_text().splitlines() if other != line]
        alive.truncate(0)
        alive.write("".join(f"{other}\n" for other in others).encode())
