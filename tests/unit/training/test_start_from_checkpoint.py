"""Training that starts from a checkpoint: the same under ZeRO-2 and ZeRO-3, whatever it holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fixtures.training_process import assert_same_curve, spread_zero3
from fixtures.training_run import edit_config, run, write_run
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings
from threedrs.teachers.known_teachers import teacher_channels

CHANNELS = teacher_channels("vggt-tiny")
MODEL = Path("results/train/3drs/model")


def run_from(
    folder: Path, base: Path, stage: str, *, name: str = "llava-video", **train: Any
) -> dict[str, torch.Tensor]:
    """Train two steps from ``base``; return the tensors of the export.

    With ZeRO-3 every large parameter is spread, though over one rank alone.
    """
    path = write_run(folder, samples=8, epochs=1, **train)
    if stage == "zero3":
        edit_config(path, deepspeed=spread_zero3(folder))
    config = json.loads(path.read_text())
    config["model"] |= {"name": name, "size": "7b", "path": str(base)}
    path.write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        run(folder, patch)
    return load_file(folder / MODEL / "model.safetensors")


@pytest.mark.slow
def test_tied_embeddings_and_another_precision_train_alike_whole_and_spread(
    tmp_path: Path,
) -> None:
    student, tokenizer = load_student(ModelSettings(name="qwen2-vl"), teacher_channels=CHANNELS)
    student.text_config.tie_word_embeddings = True
    student.language_model.tie_weights()
    save_student(student.bfloat16(), tokenizer, tmp_path / "base")
    options = {"name": "qwen2-vl", "precision": "float32"}
    exported = {
        stage: run_from(tmp_path / stage, tmp_path / "base", stage, **options)
        for stage in ("zero2", "zero3")
    }
    assert_same_curve(tmp_path / "zero3", tmp_path / "zero2")
    for tensors in exported.values():  # the run's precision and not the checkpoint's
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert "lm_head.weight" not in exported["zero3"]
    again, _ = load_student(ModelSettings(path=tmp_path / "zero3" / MODEL))
    embedding = again.language_model.get_input_embeddings().weight
    assert again.language_model.lm_head.weight is embedding
    assert torch.equal(embedding, exported["zero3"]["model.embed_tokens.weight"])
