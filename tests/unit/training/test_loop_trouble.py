"""Runs in trouble: a GPU that is out of memory, a stop during an evaluation on the way."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.training_run import OUT, run, write_evaluation, write_run
from threedrs.distributed.ranks import StopRequest
from threedrs.errors import MachineError
from threedrs.evaluation.answerer import SceneAnswers, StudentAnswerer
from threedrs.scenes.store import SceneStore
from threedrs.training import loop
from threedrs.training.checkpoints import list_checkpoints
from threedrs.training.run_log import growing_log, read_rows

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("start_student", "student and optimizer: the GPU is out of memory; stop what .*zero3"),
        ("build_engine", "student and optimizer: the GPU is out of memory; stop what else .*zero3"),
        ("load_checkpoint", "student and optimizer: the GPU is out of memory; stop what else"),
        ("train_step", r"step 1: the GPU is out of memory; lower train\.pack"),
        ("save_checkpoint", "checkpoint of step 1: the GPU is out of memory; stop what else runs"),
        ("export_run", "export after step 1, which is saved: the GPU is out of memory; stop what"),
    ],
)
def test_a_gpu_without_memory_is_named_with_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    def too_large(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    write_run(tmp_path, samples=4, epochs=1, tunable=["heads"])
    monkeypatch.setattr(loop, name, too_large)
    if name == "load_checkpoint":
        monkeypatch.setattr(loop, "find_checkpoint", lambda *arguments: Path("step-00000001"))
    with pytest.raises(MachineError, match=f"^{message}"):
        run(tmp_path, monkeypatch)


def losses(folder: Path) -> list[dict[str, Any]]:
    rows = read_rows(growing_log(folder / OUT))
    return [{name: row[name] for name in row if name != "samples_per_second"} for row in rows]


def write_evaluated(folder: Path) -> None:
    """Write a run of three steps that evaluates after the second and the last, in two scenes."""
    recipe = {"epochs": 1, "tunable": ["heads"], "eval_every": 2, "eval_samples": 3}
    write_evaluation(folder, write_run(folder, samples=12, **recipe))


@pytest.mark.parametrize("step", [2, 3])
def test_a_stop_in_an_evaluation_saves_at_once_and_the_evaluation_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    for name in ("whole", "stopped"):
        write_evaluated(tmp_path / name)
    run(tmp_path / "whole", monkeypatch)
    assert [row["step"] for row in losses(tmp_path / "whole") if "eval" in row] == [2, 3]

    folder, stop, opened = tmp_path / "stopped", StopRequest(), []

    def open_and_signal(answerer: StudentAnswerer, store: SceneStore) -> SceneAnswers:
        opened.append(store.scene)
        if len(opened) == (1 if step == 2 else 3):  # the first scene of this step's evaluation
            stop.name = "SIGUSR1"
        return open_scene(answerer, store)

    open_scene = StudentAnswerer.open
    monkeypatch.setattr(StudentAnswerer, "open", open_and_signal)
    monkeypatch.chdir(folder)
    with pytest.raises(loop.StoppedError, match=f"stopped by SIGUSR1, saved at step {step}; run"):
        loop.train(json.loads((OUT / "config.json").read_text()), stop)
    assert len(opened) == (1 if step == 2 else 3)
    assert [path.name for path in list_checkpoints(folder / OUT / "checkpoints")] == [
        f"step-0000000{step}"
    ]
    assert [row["step"] for row in losses(folder)] == list(range(1, step))
    assert not (folder / OUT / "train.json").exists()

    monkeypatch.setattr(StudentAnswerer, "open", open_scene)
    run(folder, monkeypatch)
    assert losses(folder) == losses(tmp_path / "whole")
    assert (folder / OUT / "train.json").exists()
