"""What the jobs of the workflow inherit from the Snakemake process, and hear through it."""

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path


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
