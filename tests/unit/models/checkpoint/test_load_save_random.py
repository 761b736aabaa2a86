"""Students from scratch: their seed, and how large their weights begin."""

import pytest
import torch

from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings


def test_tiny_student_is_seeded() -> None:
    first, _ = load_student(ModelSettings(), teacher_channels=8)
    again, _ = load_student(ModelSettings(), teacher_channels=8)
    other, _ = load_student(ModelSettings(seed=1), teacher_channels=8)
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("name", ["llava-video", "qwen2-vl"])
def test_students_from_scratch_end_their_branches_in_small_weights(name: str) -> None:
    student, _ = load_student(ModelSettings(name=name), teacher_channels=0)
    layers = student.language_model.model.layers
    wide = student.text_config.initializer_range
    for layer in layers:
        for linear in (layer.self_attn.q_proj, layer.mlp.up_proj):
            assert linear.weight.std().item() == pytest.approx(wide, rel=0.05)
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            small = wide / (2 * len(layers)) ** 0.5
            assert linear.weight.std().item() == pytest.approx(small, rel=0.05)
