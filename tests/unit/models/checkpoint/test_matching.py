"""Folders whose tensors do not fit the student, and those that are known and not used."""

import json
import logging
from pathlib import Path

import pytest
import torch

from fixtures.saved_students import edit, load, total
from fixtures.saved_students import saved as saved  # a fixture
from fixtures.students import CHANNELS, student, tokenizer
from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.checkpoint.matching import vocabulary_rows
from threedrs.models.model_settings import ModelSettings


def test_vocabulary_rows() -> None:
    matrix = torch.tensor([[1.0], [3.0], [9.0], [9.0], [9.0]])
    assert vocabulary_rows(matrix, 4, 2).flatten().tolist() == [1, 3, 2, 2]
    assert vocabulary_rows(matrix[:2], 4, 2).flatten().tolist() == [1, 3, 2, 2]
    assert vocabulary_rows(matrix, 3, None).flatten().tolist() == [1, 3, 9]


def test_known_tensors_without_use_are_ignored(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vision = "model.vision_tower.vision_tower.vision_model."
    extra = [
        "model.corres_linear.weight",
        "model.linear_dc.0.bias",
        "model.geometric_linear.weight",
        f"{vision}post_layernorm.weight",
        f"{vision}head.probe",
        f"{vision}encoder.layers.1.mlp.fc1.weight",  # the last layer, which does not run
    ]
    edit(saved, lambda tensors: tensors.update({name: torch.zeros(1) for name in extra}))
    with caplog.at_level(logging.INFO):
        loaded, _ = load(saved)
    assert "6 tensors are not used" in caplog.text
    assert torch.equal(total(loaded), total(student()))


@pytest.mark.parametrize(
    "name",
    [
        "model.surprise.weight",
        "model.layers.3.mlp.up_proj.weight",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight",
    ],
)
def test_unknown_tensors_stop_the_load(saved: Path, name: str) -> None:
    edit(saved, lambda tensors: tensors.update({name: torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=f"1 unknown: {name}"):
        load(saved)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "ground_head_zero_target", "model.proj_3d.0.bias"]
)
def test_missing_tensors_stop_the_load(saved: Path, name: str) -> None:
    edit(saved, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"1 missing: {name}"):
        load(saved)


def test_a_trained_checkpoint_must_hold_its_heads(saved: Path) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("ground_head_")]:
            del tensors[name]

    edit(saved, strip)
    with pytest.raises(CheckpointError, match="13 missing: ground_head_zero_target"):
        load(saved)


def test_a_checkpoint_trained_without_a_teacher_gets_a_new_projection_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    baseline = student(teacher_channels=0)
    save_student(baseline, tokenizer(), tmp_path / "m")
    assert load(tmp_path / "m")[0].proj_3d is None
    with caplog.at_level(logging.INFO):
        first, _ = load(tmp_path / "m", teacher_channels=8)
    assert "4 tensors start at random: model.proj_3d.0.weight" in caplog.text
    again, _ = load(tmp_path / "m", teacher_channels=8)
    other, _ = load_student(ModelSettings(path=tmp_path / "m", seed=1), teacher_channels=8)
    assert first.proj_3d[2].out_features == 8
    assert torch.equal(first.proj_3d[0].weight, again.proj_3d[0].weight)
    assert not torch.equal(first.proj_3d[0].weight, other.proj_3d[0].weight)
    kept = baseline.state_dict()
    assert all(torch.equal(first.state_dict()[name], kept[name]) for name in kept)
    edit(tmp_path / "m", lambda tensors: tensors.pop("ground_head_zero_target"))
    with pytest.raises(CheckpointError, match="1 missing: ground_head_zero_target"):
        load(tmp_path / "m", teacher_channels=8)


def test_a_checkpoint_trained_with_a_teacher_must_hold_its_projection_head(saved: Path) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("model.proj_3d.")]:
            del tensors[name]

    edit(saved, strip)
    with pytest.raises(CheckpointError, match=r"4 missing: model\.proj_3d\.0\.weight"):
        load(saved, teacher_channels=CHANNELS)


def test_tensors_of_another_shape_stop_the_load(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.update({"model.norm.weight": torch.ones(5)}))
    with pytest.raises(CheckpointError, match=r"of another shape: model.norm.weight \(5,\)"):
        load(saved)


def test_a_tokenizer_with_more_tokens_than_rows_has_a_remedy(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    rows = config["vocab_size"] - 1
    names = ("model.embed_tokens.weight", "lm_head.weight")
    edit(saved, lambda tensors: tensors.update({n: tensors[n][:rows].clone() for n in names}))
    message = rf"2 of another shape: .*\({rows}, 32\).*; copy the tokenizer's files .* or give"
    with pytest.raises(CheckpointError, match=message):
        load(saved)
