"""Qwen2-VL's losses against slow code: its own tower and decoder, our embedding, heads, teacher."""

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLTextModel,
)

from fixtures.qwen2_vl import CHANNELS, SUPERVISION, loaded, pack
from fixtures.students import CAPTION, GROUNDING, TEXT, ZERO_TARGET
from threedrs.models.backbones.qwen2_modules import pixel_patches
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Pack
from threedrs.models.student import Student
from threedrs.models.visual_tokens import pooled_teacher, position_embedding
from threedrs.tasks.record import Record

WIDTH = 96


def slow_teacher(teacher: Tensor, side: int) -> Tensor:
    """The mean of the teacher's tokens that each of ``side`` x ``side`` tokens covers."""
    step = 14 // side
    pooled = torch.zeros(len(teacher), side, side, teacher.shape[-1])
    for frame in range(len(teacher)):
        for row in range(14):
            for column in range(14):
                token = teacher[frame, row, column].float() / step**2
                pooled[frame, row // step, column // step] += token
    return pooled


@pytest.mark.parametrize("side", [14, 7])
def test_pooled_teacher_equals_loops(side: int) -> None:
    teacher = torch.randn(2, 14, 14, 5, generator=torch.Generator().manual_seed(0)).half()
    found = pooled_teacher(teacher, side)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, slow_teacher(teacher, side))


def slow_visual(model: Student, rgb: Tensor, side: int) -> Tensor:
    """The tokens (V,side,side,D) of each frame, alone, by transformers' tower and merger."""
    tower = Qwen2VisionTransformerPretrainedModel(model.family.vision_config).eval()
    weights = {f"merger.{name}": value for name, value in model.projector.state_dict().items()}
    tower.load_state_dict(weights | model.vision_tower.state_dict())
    frames = []
    for picture in rgb:
        patches = pixel_patches(picture[None], side=2 * side, patch=14, merge=2, repeats=2)
        output = tower(patches, grid_thw=torch.tensor([[1, 2 * side, 2 * side]]))
        frames.append(output.pooler_output.view(side, side, WIDTH))
    return torch.stack(frames)


def slow_hidden(model: Student, tokens: Tensor, positions: list[tuple[int, int, int]]) -> Tensor:
    """The last hidden states (T,D) by transformers' decoder."""
    config = copy.deepcopy(model.text_config)
    config._attn_implementation = "eager"
    decoder = Qwen2VLTextModel(config).eval()
    decoder.load_state_dict(model.language_model.model.state_dict())
    ids = torch.tensor(positions).T[:, None]
    return decoder(inputs_embeds=tokens[None], position_ids=ids).last_hidden_state[0]


def slow_losses(model: Student, packed: Pack, side: int) -> tuple[float, float, float]:
    """Text, grounding and 3D loss of a pack of one, step by step."""
    inputs, (sample,) = packed.scene, packed.samples
    frames = len(inputs.rgb_VHWC)
    fine = slow_visual(model, inputs.rgb_VHWC, side)
    visual = (fine + position_embedding(inputs.patch_xyz_VGG3, WIDTH)).view(-1, WIDTH)

    embeddings = model.language_model.get_input_embeddings().weight
    before, after = list(sample.prefix.before_ids), list(sample.prefix.after_ids)
    own = embeddings[sample.input_ids].clone()
    if sample.coordinate is not None:
        index, point = sample.coordinate
        own[index] += position_embedding(torch.from_numpy(point), WIDTH)
    tokens = torch.cat([embeddings[before], visual, embeddings[after], own])

    start = len(before)
    positions = [(place, place, place) for place in range(start)]
    for frame in range(frames):
        for row in range(side):
            for column in range(side):
                positions.append((start + frame, start + row, start + column))
    place = max(max(position) for position in positions) + 1
    while len(positions) < len(tokens):
        positions.append((place, place, place))
        place += 1
    hidden = slow_hidden(model, tokens, positions)
    at_visual = hidden[start : start + len(visual)].view(frames, side, side, WIDTH)

    text = grounding = 0.0
    if sample.target_rows is None:
        labels = [*sample.prefix.labels(len(visual)), *sample.labels.tolist()]
        logits = model.language_model.lm_head(hidden)
        text = functional.cross_entropy(logits[:-1], torch.tensor(labels[1:])).item()
    else:
        objects = []
        for box, mask_a, mask_b in zip(
            inputs.boxes_N6, inputs.fine_NVFF, inputs.coarse_NVGG, strict=True
        ):
            feature_a = fine[mask_a].mean(0) + position_embedding(box[:3], WIDTH)
            objects.append((feature_a + at_visual[mask_b].mean(0)) / 2)
        query = hidden[len(tokens) - len(own) + sample.ground_index]
        scores = (model.grounding_head(torch.stack(objects), query[None])[0] / 0.07).exp()
        targets = sum(scores[row] for row in sample.target_rows or [-1])
        grounding = -math.log(targets / scores.sum())

    teacher = slow_teacher(inputs.teacher_VGGC, side).flatten(0, 2)
    predicted = model.proj_3d(at_visual).flatten(0, 2)
    distances = []
    for p, t in zip(predicted, teacher, strict=True):
        distances.append(float(((p / p.norm() - t / t.norm()) ** 2).sum()))
    return text, grounding, sum(distances) / len(distances)


@pytest.mark.parametrize("side", [14, 7])
@pytest.mark.parametrize("record", [CAPTION, GROUNDING, ZERO_TARGET], ids=lambda one: one.id)
def test_losses_equal_slow_code(record: Record, side: int) -> None:
    model, packed = loaded(side)[0], pack((record,), side)
    with torch.no_grad():
        losses = model(packed, SUPERVISION)
        expected = slow_losses(model, packed, side)
    found = (losses.text_K.item(), losses.grounding_K.item(), losses.supervision.item())
    assert found == pytest.approx(expected, rel=1e-5)


def test_coordinates_in_bfloat16_give_other_losses() -> None:
    settings = ModelSettings(name="qwen2-vl", grid=14, coordinate_dtype="bfloat16")
    coarse, _ = load_student(settings, teacher_channels=CHANNELS)
    exact = loaded()[0]
    coarse.load_state_dict(exact.state_dict())
    points = pack((TEXT,)).scene.patch_xyz_VGG3
    rounded = position_embedding(points, WIDTH, torch.bfloat16)
    assert torch.equal(coarse.position_embedding(points), rounded)
    with torch.no_grad():
        losses = [model(pack((TEXT,)), SUPERVISION) for model in (coarse, exact)]
    assert losses[0].text_K.item() != pytest.approx(losses[1].text_K.item(), rel=1e-6)
    assert losses[0].supervision.item() != pytest.approx(losses[1].supervision.item(), rel=1e-6)
