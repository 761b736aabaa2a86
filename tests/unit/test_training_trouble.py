"""Runs in trouble: a GPU that is out of memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_lora_training import run
from training_run import write_run

from threedrs.errors import MachineError
from threedrs.training import loop


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("load_student", "student and optimizer: the GPU is out of memory; stop what else .*zero3"),
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
