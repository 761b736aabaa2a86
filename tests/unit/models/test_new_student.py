"""Students from scratch: their seed, and how large their weights begin."""

import numpy as np
import pytest
import torch

from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.new_student import empty_student


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


@pytest.mark.parametrize("name", ["llava-video", "qwen2-vl"])
def test_a_counted_student_has_the_parameters_of_a_trained_one(name: str) -> None:
    settings = ModelSettings(name=name)
    trained, _ = load_student(settings, teacher_channels=8)
    counted = empty_student(settings, 8).named_parameters()
    assert [(n, p.shape) for n, p in counted] == [
        (n, p.shape) for n, p in trained.named_parameters()
    ]


@pytest.mark.parametrize(
    ("name", "size"), [("llava-video", "tiny"), ("qwen2-vl", "tiny"), ("qwen2-vl", "mini")]
)
def test_images_begin_as_loud_as_places(name: str, size: str) -> None:
    """Else the position code of the visual tokens drowns what they show."""
    student, _ = load_student(ModelSettings(name=name, size=size), teacher_channels=0)
    rng = np.random.default_rng(0)
    side = student.family.grid.coarse
    colours = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)  # of patches that are plain
    row = np.arange(384) * side // 384
    frames = torch.from_numpy(colours[:, row[:, None], row])
    with torch.no_grad():
        fine = student.family.fine_tokens(student.vision_tower, student.projector, frames)
        images = student.family.coarse_tokens(fine).flatten(0, 2)
    points = rng.uniform((-2.5, -2.5, 0), (2.5, 2.5, 2), (500, 3)).astype(np.float32)  # of a room
    places = student.position_embedding(torch.from_numpy(points))
    deviation = [(tokens - tokens.mean(0)).square().mean().sqrt() for tokens in (images, places)]
    assert 0.7 < deviation[0] / deviation[1] < 2
