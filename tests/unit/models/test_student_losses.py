"""The losses of a student against slow code, and those of packs against single samples."""

import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional
from transformers import Qwen2ForCausalLM

from fixtures.students import (
    CAPTION,
    CHANNELS,
    GROUNDING,
    MIXED,
    TEXT,
    ZERO_TARGET,
    pack,
    scene,
    student,
)
from threedrs.config.schema import SupervisionSettings
from threedrs.models.heads import supervision_loss
from threedrs.models.packing import Pack, PackLosses
from threedrs.models.student import Student
from threedrs.models.visual_tokens import position_embedding

SUPERVISION = SupervisionSettings(weight=0.7)


def _gradients(model: Student, packs: list[Pack]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    for one in packs:
        model(one, SUPERVISION).total(SUPERVISION.weight).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("label_chat_tokens", [True, False])
@pytest.mark.parametrize("records", [MIXED, (GROUNDING, ZERO_TARGET, GROUNDING, TEXT)])
def test_packed_gradients_equal_the_sum_over_single_samples(
    records: tuple, label_chat_tokens: bool
) -> None:
    model = student()
    together = _gradients(model, [pack(records, label_chat_tokens=label_chat_tokens)])
    singles = [pack([item], label_chat_tokens=label_chat_tokens) for item in records]
    alone = _gradients(model, singles)
    assert set(together) == set(alone) == {name for name, _ in model.named_parameters()}
    for name, gradient in alone.items():
        difference = (together[name] - gradient).norm()
        if name == "vision_tower.encoder.layers.0.self_attn.k_proj.bias":
            # Softmax cancels what is added to all keys alike: zero but for rounding.
            assert gradient.norm() < 1e-6
            assert difference < 1e-6
        else:
            assert difference <= 1e-5 * gradient.norm(), f"{name}: {difference}"


def test_packed_losses_equal_single_losses() -> None:
    model = student()
    with torch.no_grad():
        together = model(pack(MIXED), SUPERVISION)
        alone = [model(pack([item]), SUPERVISION) for item in MIXED]
    for k, single in enumerate(alone):
        torch.testing.assert_close(together.text_K[k], single.text_K[0])
        torch.testing.assert_close(together.grounding_K[k], single.grounding_K[0])
        torch.testing.assert_close(together.supervision, single.supervision)
    assert (together.text_K > 0).tolist() == [True, False, True, False]
    assert (together.grounding_K > 0).tolist() == [False, True, False, True]
    # The vocabulary head runs once at the places that a pack's samples share.
    shared = alone[1].predictions  # a grounding sample has none of its own
    assert shared > 1
    places = sum(single.predictions - shared for single in alone)
    assert together.predictions == shared + places


def _plain(model: Student) -> Qwen2ForCausalLM:
    """Return transformers' own language model with the same weights and eager attention."""
    config = deepcopy(model.text_config)
    config._attn_implementation = "eager"
    plain = Qwen2ForCausalLM(config)
    plain.load_state_dict(model.language_model.state_dict())
    return plain


def _slow_losses(model: Student, packed: Pack) -> tuple[float, float, float]:
    """Text, grounding and 3D loss of a pack of one, step by step."""
    inputs, (sample,) = packed.scene, packed.samples
    pixels = (inputs.rgb_VHWC.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    tower = model.vision_tower
    hidden = tower.embeddings(pixels)
    for layer in tower.encoder.layers:
        hidden = layer(hidden, None)
    first, last = model.projector[0], model.projector[2]
    fine = functional.linear(hidden, first.weight, first.bias)
    fine = functional.linear(functional.gelu(fine), last.weight, last.bias).view(-1, 27, 27, 32)
    grid = functional.interpolate(fine.permute(0, 3, 1, 2), (14, 14), mode="bilinear")
    grid = grid.permute(0, 2, 3, 1) + position_embedding(inputs.patch_xyz_VGG3, 32)
    visual = [
        token
        for frame in grid
        for row in frame
        for token in [*row, model.newline_tokens.image_newline]
    ]
    embeddings = model.language_model.get_input_embeddings().weight
    before, after = sample.prefix.before_ids, sample.prefix.after_ids
    own = embeddings[sample.input_ids].clone()
    if sample.coordinate is not None:
        index, point = sample.coordinate
        own[index] += position_embedding(torch.from_numpy(point), 32)
    tokens = torch.cat(
        [embeddings[list(before)], torch.stack(visual), embeddings[list(after)], own]
    )
    labels = torch.tensor([*sample.prefix.labels(len(visual)), *sample.labels.tolist()])
    output = _plain(model)(inputs_embeds=tokens[None], output_hidden_states=True)
    hidden = output.hidden_states[-1][0]
    text = functional.cross_entropy(output.logits[0, :-1], labels[1:]).item()
    at_visual = hidden[len(before) : len(before) + len(visual)].view(-1, 14, 15, 32)[:, :, :14]
    grounding = 0.0
    if sample.target_rows is not None:
        text = 0.0
        objects = []
        for box, mask_a, mask_b in zip(
            inputs.boxes_N6, inputs.fine_NVFF, inputs.coarse_NVGG, strict=True
        ):
            feature_a = fine[mask_a].mean(0) + position_embedding(box[:3], 32)
            objects.append((feature_a + at_visual[mask_b].mean(0)) / 2)
        query = hidden[len(tokens) - len(own) + sample.ground_index]
        scores = (model.grounding_head(torch.stack(objects), query[None])[0] / 0.07).exp()
        targets = sum(scores[row] for row in sample.target_rows or [-1])
        grounding = -math.log(targets / scores.sum())
    assert model.proj_3d is not None
    assert inputs.teacher_VGGC is not None
    supervision = supervision_loss(
        model.proj_3d(at_visual), inputs.teacher_VGGC, SUPERVISION, "s"
    ).item()
    return text, grounding, supervision


@pytest.mark.parametrize("item", MIXED, ids=lambda item: item.id)
def test_losses_equal_slow_code(item: object) -> None:
    packed = pack([item])  # type: ignore[list-item]
    with torch.no_grad():
        losses = student()(packed, SUPERVISION)
        expected = _slow_losses(student(), packed)
    found = (losses.text_K.item(), losses.grounding_K.item(), losses.supervision.item())
    assert found == pytest.approx(expected, rel=1e-5)


def test_total_is_the_sum_over_samples() -> None:
    losses = PackLosses(
        text_K=torch.tensor([1.0, 0.0, 2.0]),
        grounding_K=torch.tensor([0.0, 5.0, 0.0]),
        supervision=torch.tensor(0.25),
        counted_K=torch.tensor([1.0, 1.0, 0.0]),  # the last one only pads
        predictions=0,
    )
    assert losses.total(2.0).item() == 1 + 5 + 2 + 2 * 2 * 0.25


@pytest.mark.parametrize(
    ("records", "channels"),
    [((TEXT,), None), ((GROUNDING,), None), ((TEXT, CAPTION), CHANNELS)],
)
def test_every_parameter_takes_part_in_every_step(records: tuple, channels: int | None) -> None:
    model = student()
    gradients = _gradients(model, [pack(records, scene(channels=channels))])
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    if channels is None:
        assert all(not gradients[name].any() for name in gradients if name.startswith("proj_3d"))
    if GROUNDING not in records:
        grounding = [name for name in gradients if name.startswith("grounding_head")]
        assert grounding
        assert all(not gradients[name].any() for name in grounding)
