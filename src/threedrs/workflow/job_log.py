"""The log of one job: what a stage says, and what its libraries print, goes to its log file.

The terminal is left to the screen of the whole run (`threedrs.workflow.run_screen`), which shows
the last line of a running job's log, and why a job failed.
"""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from threedrs.errors import one_line_errors
from threedrs.workflow.locks import exclusive
from threedrs.workflow.processes import end_with_snakemake


@contextmanager
def job_log(path: str | Path, stage: str) -> Iterator[logging.Logger]:
    """Log a stage's work to ``path``; where it fails, end the process with status 1.

    An error the user can put right leaves one line that names the stage and the log. Anything else
    is a bug and leaves its traceback.
    """
    end_with_snakemake()
    # The lock comes first: opening the log would empty that of another process at the same work.
    with one_line_errors(stage), exclusive(Path(path)), _logging(Path(path)) as logger:
        try:
            with one_line_errors(stage, lambda line: logger.error("%s (log: %s)", line, path)):
                yield logger
        except KeyboardInterrupt:
            logger.error("%s: stopped by SIGINT; run the same command to go on", stage)
            sys.exit(1)
        except Exception:  # a bug, whatever it is
            with suppress(OSError), Path(path).open("a", encoding="utf-8") as stream:
                traceback.print_exc(file=stream)
                stream.flush()
                sys.exit(1)
            raise  # the log cannot take it, so the terminal has to


class _LogFile(logging.FileHandler):
    """A log file whose lines go to ``terminal``, a file descriptor, where its disk is full."""

    terminal: int

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            os.write(self.terminal, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        else:
            super().handleError(record)


@contextmanager
def _logging(path: Path) -> Iterator[logging.Logger]:
    logger = logging.getLogger("threedrs")
    logger.setLevel(logging.INFO)
    path.open("w").close()  # of an attempt before; both writers below append
    # The log is UTF-8 in every locale; a name in other bytes shows as it can be typed in a shell.
    file = _LogFile(path, mode="a", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    )
    logger.addHandler(file)
    # Libraries print past `logging`, from Python and from C, so the streams themselves are turned.
    streams = [os.dup(1), os.dup(2)]
    file.terminal, log = streams[1], os.open(path, os.O_WRONLY | os.O_APPEND)
    _turn(log, log)
    try:
        yield logger
    finally:
        _turn(*streams)
        logger.removeHandler(file)
        with suppress(OSError):  # a full disk, whose lines the terminal has
            file.close()
        for stream in (*streams, log):
            os.close(stream)


def _turn(output: int, error: int) -> None:
    """Let this process's streams write to other file descriptors."""
    with suppress(OSError):  # a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os.dup2(output, 1)
    os.dup2(error, 2)
