"""Logs of one job: what a stage says goes to its log file and to the terminal."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from threedrs.errors import MachineError, readable
from threedrs.workflow.locks import claimed, end_with_snakemake


@contextmanager
def job_log(path: str | Path, stage: str) -> Iterator[logging.Logger]:
    """Log a stage's work to ``path`` and standard error; end in one line where it fails.

    An error the user can put right leaves one line that names the stage and the log, and exit
    status 1. Anything else is a bug: the traceback goes to the log, and the exception goes on.
    """
    end_with_snakemake()
    try:
        # Before the log of another process that works on the same is emptied.
        with claimed(Path(path)), _logging(Path(path)) as logger:
            try:
                yield logger
            except Exception as error:
                line = readable(error)
                if line is not None:
                    logger.error("%s: %s (log: %s)", stage, line, path)
                    sys.exit(1)
                with suppress(OSError), Path(path).open("a") as stream:
                    traceback.print_exc(file=stream)
                raise
    except MachineError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        sys.exit(1)


class _LogFile(logging.FileHandler):
    """A log whose disk may be full: what does not fit is on the terminal all the same."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def _logging(path: Path) -> Iterator[logging.Logger]:
    logger = logging.getLogger("threedrs")
    logger.setLevel(logging.INFO)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    handlers: list[logging.Handler] = [
        _LogFile(path, mode="w"),
        logging.StreamHandler(sys.stderr),
    ]
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            with suppress(OSError):
                handler.close()
