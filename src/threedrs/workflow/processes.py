"""The processes of the workflow: what a job inherits from its Snakemake, and how it ends with it.

A Snakemake that is killed cannot end its jobs; left alone, they would go on and write beside those
of the next Snakemake. So each job looks twice a second whether the Snakemake that started it lives,
and ends itself and its own processes if not.
"""

import ctypes
import gc
import getpass
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from threedrs.errors import MachineError, check_arguments

STARTER = "THREEDRS_SNAKEMAKE"  # machine, process namespace, process and its start
LOCALE = "C.UTF-8"  # of what this process starts
_SHELL_SIGNS = re.compile(r"""[\s|&;<>()$`\\"'*?\[\]#~!{}]""")
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG for prctl
LOOK_EVERY = 0.5  # seconds; a Snakemake takes longer than that to start its first job


def prepare_snakemake(root: Path) -> None:
    """Check and set what this Snakemake process and its jobs run with; ``root`` is the checkout.

    Raises as `check_package` and `check_python`.
    """
    check_python()
    check_package(root)
    use_this_checkout(root)
    # Slurm sends the warning before a job's time limit to the processes that it started itself,
    # which is Snakemake, and, depending on how it tracks processes, to those below, or not. Handed
    # on to all of these, SIGUSR1 does not end Snakemake.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, lambda number, frame: _signal_descendants(number))
    name_snakemake()


def check_python() -> None:
    """Check that Snakemake can start scripts.

    Raises:
        MachineError: the path of Python is more than one word in a shell.
    """
    if _SHELL_SIGNS.search(sys.executable):
        raise MachineError(
            f"{sys.executable}: Snakemake starts scripts by this path without quoting it, so it "
            "may not hold spaces or signs of the shell; move the folder to a path of letters, "
            "digits, - and _, and call `make setup` there"
        )


def check_package(root: Path) -> None:
    """Check that the command line is text, and that the code is that of the checkout ``root``.

    Raises:
        ConfigError: an argument has bytes that are not text.
        MachineError: there is a checkout, and the code is another one's: what runs would not be
            what is watched for changes.
    """
    check_arguments()
    own, ours = Path(root, "src/threedrs").resolve(), Path(__file__).resolve().parents[1]
    if own.is_dir() and own != ours:
        raise MachineError(
            f"the code that runs is {ours}, but this folder has its own, {own}; call `make setup` "
            f"here and use .venv, or set PYTHONPATH={shlex.quote(str(own.parent))}"
        )


def use_this_checkout(root: Path) -> None:
    """Let jobs find this interpreter, the tools beside it (ninja), and the code under ``root``.

    So the workflow runs the same whether the virtual environment is activated or not. The code
    comes first on PYTHONPATH, so that jobs run the very modules that the rules watch for changes.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    own, others = str(Path(root, "src").resolve()), os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (own, others)))
    os.environ["LC_ALL"] = LOCALE
    # Containers and batch systems may run as a number that no list of users has; Snakemake and
    # torch ask for a name all the same, and end with a traceback where there is none.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def run_text(
    *command: str, seconds: float = 60.0, said: str | None = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in a fixed locale; return its status and what it says.

    Bytes that are not UTF-8 become replacement characters.

    Args:
        seconds: after which the program is ended.
        said: what is said to it; None: it reads what this process reads.
        folder: where it works; None: here.

    Raises:
        OSError: there is no such program.
        subprocess.TimeoutExpired: it did not end in time.
    """
    # What a program prints, and how it compares letters, depends on the locale of the user: in
    # Turkish a capital I is not the capital of i. Variables such as SQUEUE_PARTITION hide jobs.
    hiding = ("LC_", "SQUEUE_", "SACCT_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(hiding)}
    return subprocess.run(
        command,
        input=said,
        cwd=folder,
        capture_output=True,
        env={**kept, "LC_ALL": LOCALE, "LANGUAGE": ""},
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )


def _signal_descendants(number: int) -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since the list was made
            process.send_signal(number)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large packages in the block without Python's garbage collector."""
    # The collector would look through what grows to a million objects again and again, and find
    # nothing: a fifth of the seconds that torch and transformers take.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays: later collections need not look at it either
        gc.enable()


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _started(process: int) -> str | None:
    """Return the process's start time in clock ticks, or None if it is not running.

    A number alone does not name a process: the kernel gives it to another one in time.
    """
    try:
        # A program may have any bytes for a name.
        text = Path(f"/proc/{process}/stat").read_text(encoding="latin-1")
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
    threading.Thread(target=_watch, args=(starter, started), daemon=True).start()


def _watch(starter: int, started: str) -> None:
    while _started(starter) == started:
        time.sleep(LOOK_EVERY)
    _end()


def _end() -> None:
    # SIGKILL, because loaders ignore gentler signals, and what this job would still save by itself
    # could meet what the next Snakemake's job writes.
    _signal_descendants(signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
