"""What a run shows on no terminal, at its end, and on terminals of 80 and 40 columns."""

import io
import re
import sys
from collections.abc import Iterable
from logging import LogRecord, StreamHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fixtures.run_events import LAST, begun, ended, failed, job, record, recorded
from snakemake_logger_plugin_threedrs import LogHandler
from threedrs.workflow.run_screen import RunScreen


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Dag:
    """A DAG whose jobs need not run. As Snakemake's, it has the length of those that need to."""

    def __init__(self, rules: Iterable[str]) -> None:
        self.jobs = [SimpleNamespace(rule=SimpleNamespace(name=name)) for name in rules]

    def needrun(self, job: Any) -> bool:
        return False

    def __len__(self) -> int:
        return 0


ENDED = "SLURM-job '7' failed, SLURM status is: 'TIMEOUT'. See the cloud log."


def said(records: Iterable[LogRecord], rules: Iterable[str] = (), **settings: Any) -> list[str]:
    """Return the lines of a run where no terminal is, without the time of day."""
    screen = RunScreen(**settings)
    screen.console = Console(file=io.StringIO(), force_terminal=False)
    screen.workflow = SimpleNamespace(dag=Dag(rules))
    for each in records:
        screen.take(each)
    screen.close()
    stream = screen.console.file
    assert isinstance(stream, io.StringIO)
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()]


def test_the_recorded_run_has_a_line_a_stage_and_its_end() -> None:
    lines = said(recorded(), ["extract_features"])
    plain = [re.sub(r"\d+ (?:min|s|h)( \d+ (?:s|min))?", "N", line) for line in lines]
    assert plain[:2] == [
        "16 jobs: demo data 1, scenes 4, instructions 11",
        "Where scenes come from: the demo data",
    ]
    assert "demo data: done, 1 job in N (1 of 16 jobs)" in plain
    assert "scenes: done, 4 jobs in N (9 of 16 jobs)" in plain
    assert plain[-3:] == [
        "Done in N: 16 jobs",
        "stages    demo data N, scenes N, instructions N",
        "reused    features 1",
    ]


def test_a_module_is_shown_under_the_names_of_its_own_rules() -> None:
    records = [*begun(mine_train=1), job(1, "mine_train", run="a"), ended(1, 200.0)]
    screen = RunScreen()
    screen.console = Console(file=(stream := io.StringIO()), force_terminal=False)
    screen.state.prefix = "mine_"
    screen.workflow = SimpleNamespace(dag=Dag(["mine_predict"]))
    for each in records:
        screen.take(each)
    screen.close()
    assert "training 1" in stream.getvalue()
    assert "train a: done in 1 min 39 s" in stream.getvalue()
    assert "reused    predictions 1" in stream.getvalue()


def test_one_job_is_one_job() -> None:
    start = record(event="run_info", stats={"train": 1, "total": 1}, created=100.0)
    lines = said([*begun()[:1], start, job(1, "train"), ended(1, 101.0)])
    assert lines[0] == "1 job: training 1"
    assert [line.partition(": ")[2] for line in lines if line.startswith("Done in")] == ["1 job"]


def test_a_run_of_a_target_alone_names_no_stage() -> None:
    start = record(event="run_info", stats={"answers": 1, "total": 1}, created=100.0)
    assert said([*begun()[:1], start, job(1, "answers"), ended(1, 101.0)])[0] == "1 job"


def test_a_failure_has_each_cause_once_in_the_last_lines(tmp_path: Path) -> None:
    one, other = tmp_path / "one.log", tmp_path / "other.log"
    for log, name in ((one, "a"), (other, "b")):
        log.write_text(f"10:00:00 ERROR predict {name} scanqa: no GPU; take another node\n")
    jobs = [job(1, "predict", one, run="a", b="scanqa"), job(2, "predict", other, run="b", b="x")]
    fails = [*failed(1, "predict", one), *failed(2, "predict", other)]
    lines = said([*begun(predict=2), *jobs, *fails, *LAST])
    assert lines[-1] == (
        f"threedrs: error: predict a scanqa and 1 more: no GPU; take another node (log: {one})"
    )
    assert "\n".join(lines).count("no GPU") == 1
    assert any(line.startswith("Failed after ") for line in lines)
    assert not any("At least one job" in line or "Exiting" in line for line in lines)


def test_an_end_that_cannot_be_shown_still_says_why_jobs_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> list[tuple[str, str]]:
        raise KeyError("groups")

    monkeypatch.setattr("threedrs.workflow.run_summary.end_of_run", broken)
    log = tmp_path / "a.log"
    log.write_text("10:00:00 ERROR predict a: no GPU; take another node\n")
    lines = said([*begun(predict=1), job(1, "predict", log, run="a"), *failed(1, "predict", log)])
    assert lines[-2] == "threedrs: how the run ended cannot be shown: KeyError('groups')"
    assert lines[-1] == f"threedrs: error: predict a: no GPU; take another node (log: {log})"


def test_the_plugin_imports_nothing_while_it_shows_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unset = ("dryrun", "verbose", "debug_dag", "printshellcmds", "quiet", "nocolor")
    handler = LogHandler(SimpleNamespace(**dict.fromkeys(unset, False)), None)
    assert handler.screen is not None
    for name in [*sys.modules]:  # as workflow/rules/common.smk removes them
        if name.partition(".")[0] == "threedrs":
            monkeypatch.setitem(sys.modules, name, None)
    handler.emit(record("ValueError:\n  no such key", 40, event="error", exception="ValueError"))
    assert handler.screen.state.errors == ["threedrs: error: no such key"]


def test_what_slurm_did_is_the_cause_of_all_jobs_that_it_did_it_to(tmp_path: Path) -> None:
    refused = "SLURM sbatch failed. The error message was 'sbatch: error: no such partition'.\n"
    jobs = [job(1, "predict", run="a"), job(2, "predict", run="b"), job(3, "train", run="a")]
    fails = [
        *failed(1, "predict", said=refused),
        *failed(2, "predict", said=refused),
        *failed(3, "train", tmp_path / "own", tmp_path / "7", said=ENDED),
    ]
    lines = said([*begun(predict=2, train=1), *jobs, *fails, *LAST])
    assert lines[-2] == (
        "threedrs: error: predict a and 1 more: Slurm: submission refused (no such partition); "
        "slurm/config.yaml: set slurm_partition there to one that `sinfo` lists"
    )
    assert lines[-1] == (
        "threedrs: error: train a: Slurm: job 7 reached its time limit; raise runtime (minutes) "
        "for this rule in slurm/config.yaml; run the same command to go on"
    )


@pytest.mark.parametrize("asked", ["verbose", "printshellcmds", "debug_dag"])
def test_snakemakes_own_lines_end_with_what_slurm_did(asked: str) -> None:
    unset = ("dryrun", "verbose", "debug_dag", "printshellcmds", "quiet", "nocolor")
    more = {"stdout": False, "show_failed_logs": False, asked: True}
    handler = LogHandler(SimpleNamespace(**dict.fromkeys(unset, False) | more), None)
    assert handler.screen is None
    handler.lines = StreamHandler(stream := io.StringIO())
    for each in [*begun(train=1), job(1, "train", run="a"), *failed(1, "train", said=ENDED)]:
        handler.emit(each)
    handler.close()
    assert stream.getvalue().endswith(
        "\nthreedrs: error: train a: Slurm: job 7 reached its time limit; raise runtime (minutes) "
        "for this rule in slurm/config.yaml; run the same command to go on\n"
    )


def test_a_stop_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("train: stopped by SIGINT, saved at step 7; run the same command to go on\n")
    stop = record("Terminating processes on user request, this might take some time.")
    crash = record("Traceback ...", 40, event="error", exception="RuntimeError")
    records = [*begun(train=2), job(1, "train", log, run="a"), job(2, "train", run="b"), stop]
    lines = said([*records, *failed(1, "train", log), crash])
    assert any(line.endswith("stopping; waiting for train a, train b to end") for line in lines)
    assert any(line.startswith("Stopped after ") and "train b" in line for line in lines)
    assert lines[-1].startswith("threedrs: stopped: train a: ")
    assert not any("threedrs: error" in line or "Traceback" in line for line in lines)


def test_a_job_that_ctrl_c_interrupts_is_stopped_too(tmp_path: Path) -> None:
    """As prediction is, whose process has no handler of signals, in the middle of any line."""
    log = tmp_path / "a.log"
    log.write_text("Traceback (most recent call last):\n  File ...\nKeyboardInterrupt\n")
    stop = record("Terminating processes on user request, this might take some time.")
    lines = said(
        [*begun(predict=1), job(1, "predict", log, run="a"), stop, *failed(1, "predict", log)]
    )
    assert "predict a: stopped" in lines
    assert not [line for line in lines if "rror" in line or "Failed" in line]
    assert lines[-1].startswith("threedrs: stopped: predict a: stopped; run the same command")


def test_a_complaint_after_the_last_job_fails_no_run() -> None:
    """As of the Slurm plugin's report where accounting does not run."""
    start = record(event="run_info", stats={"train": 1, "total": 1}, created=100.0)
    complaint = record("Failed to retrieve job data for workflow 7.", 40)
    done = said([*begun()[:1], start, job(1, "train"), ended(1, 101.0), complaint])
    assert any(line.startswith("Done in ") for line in done)
    assert done[-1] == "Failed to retrieve job data for workflow 7."
    undone = said([*begun()[:1], start, job(1, "train"), complaint])
    assert any(line.startswith("Failed after ") for line in undone)


def test_a_check_that_ends_the_process_has_the_last_word() -> None:
    assert said(begun()[:1]) == []


def test_nothing_to_do_names_what_is_there() -> None:
    start = begun()[:1]
    nothing = record("Nothing to be done (all requested files are present and up to date).")
    (line,) = said([*start, nothing], ["predict", "score", "all"])
    assert line == "Nothing to be done: the results of all 2 jobs are up to date"


def test_calls_that_run_no_jobs_say_what_snakemake_says() -> None:
    assert said([record("Unlocked working directory.")]) == ["Unlocked working directory."]
    wrong = record("threedrs: error: nowhere.yaml: is not there", 40, event="error")
    assert said([record("Building DAG"), wrong]) == ["threedrs: error: nowhere.yaml: is not there"]


def test_quiet_has_the_end_and_silent_only_errors() -> None:
    run = [*begun(boxes=1), job(1, "boxes"), ended(1, 103.0)]
    assert said(run, brief=True)[0].startswith("Done in ")
    assert said(run, silent=True, brief=True) == []
    assert len(said([*begun(boxes=1), job(1, "boxes"), *failed(1, "boxes")], silent=True)) > 0


def test_long_jobs_have_a_line_of_their_own_and_one_while_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.log"
    log.write_text("train: step 3/9 loss 1.0\n")
    screen = RunScreen()
    screen.console = Console(file=io.StringIO(), force_terminal=False)
    for each in [*begun(train=1), job(1, "train", log, run="3drs")]:
        screen.take(each)
    for now in (130.0, 162.0, 170.0, 290.0):  # at a minute, and two later
        monkeypatch.setattr("time.time", lambda now=now: now)
        screen._say_running()
    screen.take(ended(1, 290.0))
    stream = screen.console.file
    assert isinstance(stream, io.StringIO)
    text = stream.getvalue()
    assert text.count("train 3drs: running for ") == 2
    assert "train 3drs: running for 1 min 1 s: step 3/9 loss 1.0" in text
    assert "train 3drs: done in 3 min 9 s" in text
    screen.close()


@pytest.mark.parametrize("columns", [80, 40])
def test_the_screen_fits_the_terminal(
    tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 4000.0)
    log = tmp_path / "a.log"
    log.write_text(f"train: step 3/9 {'loss 1.0 ' * 20} ETA 2.0 min\n")
    screen = RunScreen()
    jobs = [job(number, "train", log) for number in range(20)]
    for each in [*begun(boxes=1, train=20, predict=2), *jobs]:
        screen.state.take(each)
    stream = io.StringIO()
    screen.console = Console(file=stream, width=columns, height=24, force_terminal=False)
    screen.console.print(screen._image())
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= columns
    assert re.match(r"training +runs +0/20 +1:05:00 +~2:00", lines[2])
    assert lines[3].split() == ["predictions", "waits", "0/2"]
    assert lines[-1].strip() == "and 10 more jobs"
