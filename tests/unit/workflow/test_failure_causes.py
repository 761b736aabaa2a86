"""The cause of a failure is found in the job's log, or its lack is said."""

from pathlib import Path

import pytest

from threedrs.workflow.failure_causes import find_cause

STOPPED = "train: stopped by SIGUSR1, saved at step 7; run it again"
SILENT = "ended without a word"


@pytest.mark.parametrize(
    ("log", "text", "kind"),
    [
        ("10:00:00 INFO a\n10:00:09 ERROR score a b: x: bad (log: {log})\n", "x: bad", ""),
        (
            "10:00:00 ERROR score a: 1 of 2 scenes are bad (log: {log})\n",
            "1 of 2 scenes are bad",
            "",
        ),
        ("score: rank 0: x: bad\nlaunch: rank 1 was ended\n", "rank 0: x: bad", ""),
        ("Traceback ...\n  File ...\nKeyError: 'x'\n", "KeyError: 'x'", ""),
        ("Traceback ...\nKeyboardInterrupt\n", "KeyboardInterrupt", "silent"),
        (f"{STOPPED}\ntrain: rank 1: lost another rank\n", STOPPED, "wanted"),
        ("10:00:00 INFO scene: done\n", f'{SILENT} after "scene: done"; run the same', "silent"),
        ("", f"{SILENT}, as it does when memory runs out; run the same", "silent"),
    ],
)
def test_the_cause_is_the_last_thing_that_a_job_said(
    tmp_path: Path, log: str, text: str, kind: str
) -> None:
    path = tmp_path / "a.log"
    path.write_text(log.format(log=path))
    cause = find_cause("score a b", [path], since=0.0)
    assert cause.text.removesuffix(" command again").removesuffix(" command to go on") == text
    assert cause.log == str(path)
    assert (cause.wanted, cause.silent) == (kind == "wanted", kind == "silent")


def test_a_log_of_an_earlier_attempt_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("KeyError: 'x'\n")
    later = path.stat().st_mtime + 1000
    assert find_cause("score a b", [path], since=later).silent


def test_a_full_disk_leaves_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threedrs.workflow.failure_causes.NEARLY_FULL", 1 << 62)
    cause = find_cause("score a b", [tmp_path / "a.log"], since=0.0)
    assert cause.text == f"the disk of {tmp_path} is full; free space there, and run the same again"


def test_slurms_log_of_a_job_speaks_where_its_own_is_empty(tmp_path: Path) -> None:
    own, slurm = tmp_path / "own.log", tmp_path / "7.log"
    own.touch()
    slurm.write_text("ModuleNotFoundError: No module named 'torch'\nslurmstepd: error: ended\n")
    cause = find_cause("predict a b", [own, slurm], since=0.0)
    assert cause.text == "ModuleNotFoundError: No module named 'torch'"
    assert cause.log == str(slurm)
