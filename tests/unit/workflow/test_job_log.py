"""What a job says of its end: one line for what the user can put right, wherever the log is."""

import errno
import logging
import os
from pathlib import Path

import pytest

from threedrs.errors import DataError
from threedrs.workflow.job_log import job_log


def test_a_users_error_is_one_line_on_the_terminal_and_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "score.log"
    with pytest.raises(SystemExit) as ended, job_log(log, "score 3drs"):
        raise DataError("a.json: is empty; copy it again")
    assert ended.value.code == 1
    said = capfd.readouterr().err.strip()
    assert said.endswith(f"ERROR score 3drs: a.json: is empty; copy it again (log: {log})")
    assert log.read_text().strip() == said


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "score.log"
    with pytest.raises(KeyError), job_log(log, "score 3drs"):
        raise KeyError("of a bug")
    assert "Traceback" in log.read_text()


def test_a_log_on_a_full_disk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "score.log"
    log.symlink_to("/dev/full")

    def fail(logger: logging.Logger) -> None:
        logger.info("at work")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.json")

    with pytest.raises(SystemExit) as ended, job_log(log, "score 3drs") as logger:
        fail(logger)
    assert ended.value.code == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].endswith("INFO at work")
    assert "score 3drs: metrics.json: cannot be written (No space left on device)" in said[1]
