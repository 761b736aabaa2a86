"""What a run says while it goes, by a clock that the test moves; and the signals that stop it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from threedrs.distributed.ranks import StopRequest
from threedrs.training import run_log as progress
from threedrs.training.run_log import RunLog, curves, growing_log


class Clock:
    """Stands still until a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def row(step: int, **more: Any) -> dict[str, Any]:
    losses = {"loss": 1.5, "text": 2.0, "grounding": None, "supervision": 0.25}
    rates = {"lr": 1e-5, "grad_norm": 3.0, "samples_per_second": 4.0}
    return {"step": step, "samples": 8 * step, **losses, **rates, **more}


def open_log(out: Path, rows: list[dict[str, Any]]) -> RunLog:
    """A run of 10 steps that goes on from step 4."""
    growing_log(out).parent.mkdir(parents=True)
    growing_log(out).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run: Any = SimpleNamespace(
        total_steps=10, paths=SimpleNamespace(out=out), settings=SimpleNamespace(wandb=None)
    )
    return RunLog(run, 4)


def test_plain_lines_say_what_is_left_at_the_pace_so_far(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(tmp_path, [row(3), row(5, loss=9.0)])
    log.write(row(4))  # of an evaluation that is made up for: no pace yet
    clock.now += 60
    log.write(row(5))
    clock.now += 60
    log.write(row(7, eval={"scanqa": {"em": 25.04, "meteor": None}}))
    clock.now += 60
    log.write(row(10))
    log.close(failed=False)

    parts = "loss 1.5000 text 2.0000 supervision 0.2500 4.00 samples/s"
    assert capsys.readouterr().err.splitlines() == [
        f"train: step 4/10 {parts}",
        f"train: step 5/10 {parts} ETA 5.0 min",  # one step a minute, five left
        "train: step 7 scanqa/em 25.0",
        f"train: step 7/10 {parts} ETA 2.0 min",  # three steps in two minutes, three left
        f"train: step 10/10 {parts} ETA 0.0 min",
    ]
    written = [json.loads(line) for line in growing_log(tmp_path).read_text().splitlines()]
    assert [row["step"] for row in written] == [3, 4, 5, 7, 10]
    assert {row["loss"] for row in written} == {1.5}


def test_curves_hold_what_was_measured() -> None:
    scores = {"scanqa": {"cider": 30.5, "meteor": None}}
    found = curves({"step": 2, "loss": 0.5, "text": None, "eval": scores})
    assert found == {"train/loss": 0.5, "eval/scanqa/cider": 30.5}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_signal_is_remembered_for_the_loop(name: str) -> None:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before: list[Callable[..., Any] | int | None] = [signal.getsignal(one) for one in numbers]
    received: list[int] = []
    try:
        for number in numbers:  # in the place of the usual end, which would be the tests' own
            signal.signal(number, lambda number, frame: received.append(number))
        stop = StopRequest().install()
        assert stop.name is None
        signal.raise_signal(signal.Signals[name])
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert (stop.name, received) == (name, [])
