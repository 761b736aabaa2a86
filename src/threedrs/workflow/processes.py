"""The processes of the workflow: what a job inherits from its Snakemake, and how it ends with it.

A Snakemake that is killed cannot end its jobs; left alone, they would go on and write beside those
of the next Snakemake. So each job looks twice a second whether the Snakemake that started it lives,
and ends itself and its own processes if not.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

STARTER = "THREEDRS_SNAKEMAKE"  # machine, process namespace, process and its start
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG for prctl
LOOK_EVERY = 0.5  # seconds; a Snakemake takes longer than that to start its first job


def use_this_checkout(root: Path) -> None:
    """Let jobs find this interpreter, the tools beside it (ninja), and the code under ``root``.

    So the workflow runs the same whether the virtual environment is activated or not. The code
    comes first on PYTHONPATH, so that jobs run the very modules that the rules watch for changes.
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
    _signal_descendants(number)


def _signal_descendants(number: int) -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since the list was made
            process.send_signal(number)


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _started(process: int) -> str | None:
    """Return the process's start time in clock ticks, or None if it is not running.

    A number alone does not name a process: the kernel gives it to another one in time.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _namespace() -> str:
    """Return this machine's name and its process namespace (a container may have its own)."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def name_snakemake() -> None:
    """Tell the jobs that this process will start who started them."""
    started = _started(os.getpid())
    if started is not None:  # elsewhere than on Linux there is no /proc, and jobs do not look
        os.environ[STARTER] = f"{_namespace()} {os.getpid()} {started}"


def end_with_snakemake() -> None:
    """Let this job end when the Snakemake that started it is gone; without one, do nothing.

    A job of another machine or container than that Snakemake's does not look.
    """
    namespace, _, started = os.environ.get(STARTER, "").rpartition(" ")
    namespace, _, number = namespace.rpartition(" ")
    if not namespace or namespace != _namespace():
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
    # SIGKILL, because loaders ignore gentler signals, and what this job would still save by itself
    # could meet what the next Snakemake's job writes.
    _signal_descendants(signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
