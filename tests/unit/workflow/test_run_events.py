"""What a run's state holds after Snakemake's events."""

import logging
from pathlib import Path

import pytest

from fixtures.run_events import begun, ended, failed, job, record, recorded
from threedrs.workflow.run_events import (
    STAGE_OF,
    TARGET_RULES,
    RunState,
    duration,
    estimate,
    stage_of,
)
from threedrs.workflow.run_summary import failures

ROOT = Path(__file__).parents[3]
ENDED = "SLURM-job '{number}' failed, SLURM status is: '{state}'. See the cloud log."


def after(*records: logging.LogRecord) -> RunState:
    state = RunState()
    for each in records:
        state.take(each)
    return state


def test_every_rule_with_results_has_a_stage() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    rules = {line[5:-1].strip() for line in text.splitlines() if line.startswith("rule ")}
    assert rules - TARGET_RULES == {*STAGE_OF} - {"download"}
    assert stage_of("download_3") == "downloads"
    assert stage_of("all") == "other"


def test_the_recorded_run() -> None:
    state = after(*recorded())
    assert state.stages() == ["demo data", "scenes", "instructions"]
    assert {stage: state.count(state.done, stage) for stage in state.stages()} == {
        "demo data": 1,
        "scenes": 4,
        "instructions": 11,
    }
    assert all(state.status(stage) == "done" for stage in state.stages())
    assert [state.running, state.causes, state.errors, state.warnings] == [{}, {}, [], []]


def test_a_target_is_counted_where_it_is_forced_alone() -> None:
    start = record(event="run_info", stats={"all": 1, "total": 1}, created=100.0)
    state = after(start, job(1, "all"), ended(1, 101.0))
    assert state.planned == state.done == {"all": 1}


def test_stages_go_from_waiting_to_done() -> None:
    state = after(*begun(train=2, predict=1), job(1, "train", run="3drs"))
    assert [state.status(stage) for stage in ("training", "predictions")] == ["runs", "waits"]
    state.take(ended(1, 141.0))
    assert state.status("training") == "waits"
    state.take(job(2, "train", run="baseline"))
    assert state.time_left("training") is None  # nothing tells
    state.take(ended(2, 150.0))
    assert state.status("training") == "done"
    assert state.seconds["train"] == 40.0 + 48.0


def test_the_time_of_a_stage_is_that_in_which_one_of_its_jobs_runs() -> None:
    first, second = job(1, "run_config"), job(2, "train")
    state = after(*begun(run_config=1, train=2), first, second, ended(1, 103.0), ended(2, 111.0))
    # Two jobs beside each other, from 101 to 111; then it waits; a third runs for 6 s.
    third = job(3, "train")
    third.created = 500.0
    state.take(third)
    assert state.took("training", 504.0) == 14.0
    state.take(ended(3, 506.0))
    assert state.took("training", 900.0) == 16.0


def test_what_is_left_is_what_jobs_say_and_the_mean_of_those_that_ended(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("train: step 3/9 loss 1.0 ETA 2.5 min\n")
    state = after(*begun(train=3), job(1, "train"), ended(1, 121.0), job(2, "train", log))
    # 150 s of the one that runs, and then one more of 20 s.
    assert state.time_left("training") == 170.0


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("step 5/213 loss 3.7 ETA 5.7 min", 342.0),
        ("scene0000_00: 8 frames in 1.83 s, 1 of 6 scenes, about 9 s left", 9.0),
        ("predict: 20 of 80 questions, 4.0 a second, 15 s left", 15.0),
        ("scene0001_00: kept", None),
    ],
)
def test_a_line_that_says_what_is_left(line: str, seconds: float | None) -> None:
    assert estimate(line) == seconds


def test_a_job_on_a_cluster_is_in_the_queue_until_its_log_is_there(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    nodes = record("Provided remote nodes: 8", event="resources_info", nodes=8)
    state = after(nodes, *begun(train=1), job(1, "train", log))
    assert state.said(state.running[1]) == "in the queue"
    log.write_text("")
    assert state.said(state.running[1]) == ""
    log.write_text("train: step 1/9\n")
    assert state.said(state.running[1]) == "step 1/9"


def test_warnings_of_logs_come_with_the_name_of_their_job(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("10:00:00 INFO a\n10:00:01 WARNING scene0001_00: left out: no frame\n")
    state = after(*begun(boxes=1), job(1, "boxes", log, shard="val-000"), ended(1, 104.0))
    assert state.warnings == ["boxes val-000: scene0001_00: left out: no frame"]


def test_a_retry_that_succeeds_leaves_no_cause(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("KeyError: 'x'\n")
    state = after(*begun(score=1), job(1, "score", log, run="a"), *failed(1, "score", log))
    again = state.take(record("Trying to restart job 1."))
    assert again == f"score a: tried again after: KeyError: 'x' (log: {log})"
    state.take(job(1, "score", log, run="a"))
    state.take(ended(1, 120.0))
    assert not state.causes
    assert state.status("scores") == "done"


def test_a_retry_after_a_failure_without_an_event_leaves_no_error() -> None:
    # Outputs that do not appear in time: Snakemake logs an exception, and no event of the job.
    missing = "threedrs: error: Job 1 completed, but its outputs are not there"
    error = record(missing, 40, event="error", exception="MissingOutputException")
    state = after(*begun(score=1), job(1, "score", run="a"), error)
    again = state.take(record("Trying to restart job 1."))
    assert again == "score a: tried again after: Job 1 completed, but its outputs are not there"
    assert [state.errors, state.running] == [[], {}]


def test_a_whole_run_has_no_errors_of_earlier_attempts() -> None:
    said = record("sbatch: no answer", 40)
    start = begun(score=1, aggregate=1)
    state = after(*start, job(1, "score"), said, *failed(1, "score"))
    state.take(record("Trying to restart job 1."))
    for each in (job(1, "score"), ended(1, 120.0)):
        state.take(each)
    assert state.errors == [str(said.msg)]  # another job is still to come
    for each in (job(2, "aggregate"), ended(2, 121.0), job(0, "all"), ended(0, 122.0)):
        state.take(each)
    assert state.errors == []


def test_a_training_that_is_tried_again_after_its_warning_is_not_stopped(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("train: stopped by SIGUSR1, saved at step 7; run the same command to go on\n")
    state = after(*begun(train=1), job(1, "train", log, run="a"), *failed(1, "train", log))
    assert state.stopped
    again = state.take(record("Trying to restart job 1."))
    assert again is not None
    assert again.startswith("train a: tried again after: stopped by SIGUSR1, saved at step 7; ")
    assert not state.stopped


def test_after_a_stop_what_slurm_did_to_other_jobs_keeps_its_remedy(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("train: stopped by SIGUSR1, saved at step 7; run the same command to go on\n")
    state = after(*begun(train=1, predict=1), job(1, "train", log, run="a"), job(2, "predict"))
    out_of_memory = ENDED.format(number=8, state="OUT_OF_MEMORY")
    for each in (*failed(1, "train", log), *failed(2, "predict", said=out_of_memory)):
        state.take(each)
    assert state.stopped
    assert not state.causes[2].wanted
    assert failures(state)[-1] == (
        "threedrs: error: predict: Slurm: job 8 took more memory than it had asked for; raise "
        "mem_mb for this rule in slurm/config.yaml; run the same command to go on"
    )


def test_after_a_retry_only_what_slurm_did_last_counts() -> None:
    state = after(*begun(boxes=2), job(1, "boxes", shard="a"), job(2, "boxes", shard="b"))
    out_of_memory = ENDED.format(number=7, state="OUT_OF_MEMORY")
    for number, shard in ((1, "a"), (2, "b")):
        for each in failed(number, "boxes", said=out_of_memory):
            state.take(each)
        # While the retry goes on there is nothing to do.
        assert state.take(record(f"Trying to restart job {number}.")) == (
            f"boxes {shard}: tried again after: Slurm: job 7 took more memory than it had asked for"
        )
        state.take(job(number, "boxes", shard=shard))
    state.take(ended(1, 120.0))
    for each in failed(2, "boxes", said=ENDED.format(number=9, state="TIMEOUT")):
        state.take(each)
    (line,) = failures(state)
    assert line.startswith("threedrs: error: boxes b: Slurm: job 9 reached its time limit; raise ")


def test_after_ctrl_c_jobs_that_slurm_cancelled_have_been_stopped() -> None:
    state = after(*begun(balance=1), job(1, "balance", mix="full"))
    cancelled = ENDED.format(number=7, state="CANCELLED")
    for each in failed(1, "balance", said=cancelled):
        state.take(each)
    assert state.causes[1].text == "Slurm: job 7 was cancelled"
    state.take(record("Terminating processes on user request, this might take some time."))
    for each in failed(1, "balance", said=cancelled):
        state.take(each)
    assert state.causes[1].text == "stopped; run the same command to go on"


def test_after_ctrl_c_jobs_without_a_word_have_been_stopped() -> None:
    state = after(*begun(balance=1), job(1, "balance", mix="full"))
    state.take(record("Terminating processes on user request, this might take some time."))
    for each in failed(1, "balance"):
        state.take(each)
    state.take(record("Traceback ...", 40, event="error", exception="RuntimeError"))
    assert state.causes[1].wanted
    assert not state.errors


def test_a_traceback_of_a_submission_is_left_to_the_jobs_own_event() -> None:
    state = after(*begun(balance=1), job(1, "balance", mix="full"))
    text = "Exception in run_job for rule balance: no sacct\nTraceback (most recent call last):"
    assert state.take(record(text, 40)) is None
    assert state.take(record("the disk is gone", 40)) is None
    assert state.errors == ["the disk is gone"]


def test_a_stop_is_said_once_with_the_first_of_many_jobs() -> None:
    stop = record("Will exit after finishing currently running jobs (scheduler).")
    state = after(
        *begun(train=12), *(job(number, "train", run=f"r{number}") for number in range(12))
    )
    names = ", ".join(f"train r{number}" for number in range(10))
    assert state.take(stop) == f"stopping; waiting for {names} and 2 more to end"
    state.take(ended(0, 120.0))
    assert state.take(stop) is None  # Snakemake says it anew
    assert state.waits.endswith("train r10 and 1 more to end")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (363, "6 min 3 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
