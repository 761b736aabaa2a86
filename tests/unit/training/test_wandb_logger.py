"""Rows on their way to Weights & Biases, with a stand-in for its package."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fixtures.training_run import OUT, run, write_run
from threedrs.errors import ConfigError, MachineError
from threedrs.training import loop
from threedrs.training import wandb_logger as tracking
from threedrs.training.run_log import curves, growing_log, read_rows
from threedrs.training.wandb_logger import Tracker, WandbSettings, require_wandb

STAND_IN = '''
"""What the tests need of wandb: runs are kept by id, and go on where they stood."""
RUNS, CALLS, FAIL = {}, [], []

class Settings(dict):
    pass

class Run:
    def __init__(self):
        self.rows, self.step, self.finished = [], 0, []

    def log(self, values, step):
        if "log" in FAIL:
            raise ConnectionError("no network\\nand more lines")
        self.rows.append((step, values))
        self.step = step + 1

    def finish(self, exit_code):
        self.finished.append(exit_code)
        if "finish" in FAIL:
            FAIL[-1].wait()

def init(**arguments):
    CALLS.append(arguments)
    if "init" in FAIL:
        raise TimeoutError("W&B does not answer")
    return RUNS.setdefault(arguments["id"], Run())
'''


@pytest.fixture
def wandb(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path_factory.mktemp("site")
    (folder / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    import wandb

    yield wandb
    monkeypatch.delitem(sys.modules, "wandb", raising=False)


def tracker(out: Path, warnings: list[str], *, recipe: str = "a") -> Tracker:
    return Tracker(
        WandbSettings(project="3drs", entity="lab"),
        out,
        name="baseline",
        config={"model": {"name": "llava-video"}, "paths": {"features": {}}},
        config_hash=recipe,
        warn=warnings.append,
    )


def send(rows: Tracker, *steps: int) -> None:
    for step in steps:
        rows.log({"train/loss": 1 / step}, step)


def test_rows_and_configuration_arrive(wandb: Any, tmp_path: Path) -> None:
    warnings: list[str] = []
    rows = tracker(tmp_path, warnings)
    send(rows, 1, 2)
    rows.close(failed=False)
    (one,) = wandb.RUNS.values()
    assert one.rows == [(1, {"train/loss": 1.0}), (2, {"train/loss": 0.5})]
    (asked,) = wandb.CALLS
    assert (asked["project"], asked["entity"], asked["mode"]) == ("3drs", "lab", "online")
    assert (asked["name"], asked["resume"], asked["dir"]) == ("baseline", "allow", str(tmp_path))
    assert asked["config"] == {"model": {"name": "llava-video"}}
    assert (one.finished, warnings) == ([0], [])


def test_a_resumed_run_goes_on_and_another_recipe_does_not(wandb: Any, tmp_path: Path) -> None:
    warnings: list[str] = []
    first = tracker(tmp_path, warnings)
    send(first, 1, 2, 3)
    first.close(failed=True)
    again = tracker(tmp_path, warnings)  # from the checkpoint of step 1
    send(again, 2, 3, 4)
    again.close(failed=False)
    (one,) = wandb.RUNS.values()
    assert [step for step, _ in one.rows] == [1, 2, 3, 4]
    assert one.finished == [1, 0]
    send(tracker(tmp_path, warnings, recipe="b"), 1)
    assert len(wandb.RUNS) == 2
    assert warnings == []


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("init", "goes on without W&B: TimeoutError: W&B does not answer"),
        ("log", "goes on without W&B: ConnectionError: no network and more lines"),
    ],
)
def test_what_fails_is_said_once(wandb: Any, tmp_path: Path, fails: str, message: str) -> None:
    wandb.FAIL.append(fails)
    warnings: list[str] = []
    rows = tracker(tmp_path, warnings)
    send(rows, 1, 2, 3)
    rows.close(failed=False)
    assert warnings == [message]


def test_an_end_that_takes_for_ever_is_not_waited_for(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.05)
    hanging = threading.Event()
    wandb.FAIL.extend(["finish", hanging])
    warnings: list[str] = []
    tracker(tmp_path, warnings).close(failed=False)
    hanging.set()
    assert len(warnings) == 1
    assert "`wandb sync`" in warnings[0]


def test_the_package_is_asked_for_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    require_wandb(None)
    with pytest.raises(
        MachineError, match=r"wandb is not installed; `pip install -e '.\[wandb\]'`"
    ):
        require_wandb(WandbSettings(project="3drs"))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "wandb: 'project' is a required property"),
        ({"project": "p", "team": "t"}, "wandb.team is not a key; valid keys: project, entity"),
        ({"project": ""}, "wandb.project: '' should be non-empty"),
        ({"project": "p", "mode": "on"}, "wandb.mode is 'on'; choose one of: online, offline"),
    ],
)
def test_bad_settings(section: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WandbSettings(**section)


@pytest.mark.slow
def test_a_training_run_sends_what_it_logs(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, samples=8, epochs=1, tunable=["heads"], wandb={"project": "3drs"})
    run(tmp_path, monkeypatch)
    logged = read_rows(growing_log(tmp_path / OUT))
    (one,) = wandb.RUNS.values()
    assert one.rows == [(row["step"], curves(row)) for row in logged]
    assert len(logged) == 2
    (asked,) = wandb.CALLS
    assert asked["config"]["train"]["global_batch"] == 4
    assert json.loads((tmp_path / OUT / "checkpoints/wandb.json").read_text())["id"] == asked["id"]


def test_a_training_run_says_at_once_that_the_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, samples=4, wandb={"project": "3drs"})
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(loop, "start_student", None)  # not reached
    with pytest.raises(
        loop.AgreedError, match=r"execution\.wandb: the package wandb is not installed"
    ):
        run(tmp_path, monkeypatch)
