"""The log of one job: what a stage says goes to its log file and to the terminal."""

import logging
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
    """Log a stage's work to ``path`` and standard error; end in one line where it fails.

    An error the user can put right leaves one line that names the stage and the log, and exit
    status 1. Anything else is a bug: the traceback goes to the log, and the exception goes on.
    """
    end_with_snakemake()
    # The lock comes first: opening the log would empty that of another process at the same work.
    with one_line_errors(stage), exclusive(Path(path)), _logging(Path(path)) as logger:
        try:
            with one_line_errors(stage, lambda line: logger.error("%s (log: %s)", line, path)):
                yield logger
        except Exception:  # a bug, whatever it is
            with suppress(OSError), Path(path).open("a", encoding="utf-8") as stream:
                traceback.print_exc(file=stream)
            raise


class _LogFile(logging.FileHandler):
    """A log file that a full disk does not stop: the terminal has the same lines."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def _logging(path: Path) -> Iterator[logging.Logger]:
    logger = logging.getLogger("threedrs")
    logger.setLevel(logging.INFO)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    # The log is UTF-8 in every locale; a name in other bytes shows as it can be typed in a shell.
    file = _LogFile(path, mode="w", encoding="utf-8", errors="backslashreplace")
    handlers: list[logging.Handler] = [file, logging.StreamHandler(sys.stderr)]
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            with suppress(OSError):  # a full disk, whose lines the terminal has
                handler.close()
