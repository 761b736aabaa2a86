"""What a job says, and its libraries, stands in its log; a full disk's lines on the terminal."""

import errno
import logging
import os
from pathlib import Path

import pytest

from threedrs.errors import DataError
from threedrs.workflow.job_log import job_log


def test_a_users_error_is_one_line_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "score.log"
    with pytest.raises(SystemExit) as ended, job_log(log, "score 3drs"):
        raise DataError("a.json: is empty; copy it again")
    assert ended.value.code == 1
    (line,) = log.read_text().splitlines()
    assert line.endswith(f"ERROR score 3drs: a.json: is empty; copy it again (log: {log})")
    assert capfd.readouterr() == ("", "")


def test_what_libraries_print_is_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "score.log"
    with job_log(log, "score 3drs") as logger:
        os.write(1, b"from C\n")
        logger.info("from Python")
        os.write(2, b"a warning\n")
    os.write(1, b"afterwards")
    first, second, third = log.read_text().splitlines()
    assert (first, third) == ("from C", "a warning")
    assert second.endswith("INFO from Python")
    assert capfd.readouterr() == ("afterwards", "")


def test_ctrl_c_is_a_stop(tmp_path: Path) -> None:
    log = tmp_path / "score.log"
    log.write_text("of an attempt before\n")
    with pytest.raises(SystemExit) as ended, job_log(log, "score 3drs"):
        raise KeyboardInterrupt
    assert ended.value.code == 1
    (line,) = log.read_text().splitlines()
    assert line.endswith("score 3drs: stopped by SIGINT; run the same command to go on")


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "score.log"
    with pytest.raises(SystemExit), job_log(log, "score 3drs"):
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
