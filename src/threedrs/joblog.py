"""Logs of one job: what a stage says goes to its log file and to the terminal."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from threedrs.errors import readable


@contextmanager
def job_log(path: str | Path, stage: str) -> Iterator[logging.Logger]:
    """Log a stage's work to ``path`` and standard error; end in one line where it fails.

    An error the user can put right leaves one line that names the stage and the log, and exit
    status 1. Anything else is a bug: the traceback goes to the log, and the exception goes on.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("threedrs")
    logger.setLevel(logging.INFO)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    handlers: list[logging.Handler] = [
        logging.FileHandler(path, mode="w"),
        logging.StreamHandler(sys.stderr),
    ]
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    try:
        yield logger
    except Exception as error:
        line = readable(error)
        if line is not None:
            logger.error("%s: %s (log: %s)", stage, line, path)
            sys.exit(1)
        with Path(path).open("a") as stream:
            traceback.print_exc(file=stream)
        raise
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
