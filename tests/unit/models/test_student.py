"""The student against slow code written from its definition, and packs against single samples."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import Qwen2ForCausalLM, SiglipVisionModel

from fixtures.students import (
    CAPTION,
    CHANNELS,
    GROUNDING,
    MIXED,
    TEXT,
    ZERO_TARGET,
    pack,
    record,
    scene,
    student,
)
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import CheckpointError, ConfigError
from threedrs.models.attention.packed import PACKED
from threedrs.models.backbones.family import LLAVA_GRID
from threedrs.models.backbones.llava import pool
from threedrs.models.heads import supervision_loss
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import IGNORE, Pack, PackLosses
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.student import Student
from threedrs.models.visual_tokens import NewlineTokens, position_embedding, token_grid

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
    shared = alone[1].counts["predictions"]  # a grounding sample has none of its own
    assert shared > 1
    places = sum(single.counts["predictions"] - shared for single in alone)
    assert together.counts["predictions"] == shared + places


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
        own[sample.coordinate_index] += position_embedding(torch.from_numpy(sample.coordinate), 32)
    tokens = torch.cat(
        [embeddings[list(before)], torch.stack(visual), embeddings[list(after)], own]
    )
    labels = torch.tensor(
        [
            *sample.prefix.before_labels,
            *[IGNORE] * len(visual),
            *sample.prefix.after_labels,
            *sample.labels.tolist(),
        ]
    )
    model.language_model.set_attn_implementation("eager")
    output = model.language_model(inputs_embeds=tokens[None], output_hidden_states=True)
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
        counts={},
    )
    assert losses.total(2.0).item() == 1 + 5 + 2 + 3 * 2 * 0.25


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


def test_a_step_waits_for_no_value_of_the_device() -> None:
    # A tensor without values raises where the host would have to wait for a GPU.
    nowhere = torch.device("meta")
    model, one = student().to(nowhere), pack(MIXED).to(nowhere)
    model(one, SUPERVISION).total(SUPERVISION.weight).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_without_a_teacher_the_supervision_is_zero() -> None:
    inputs = scene(channels=None)
    model = student(teacher_channels=0)
    assert model.proj_3d is None
    assert model(pack([TEXT], inputs), SUPERVISION).supervision.item() == 0
    assert student()(pack([TEXT], inputs), SUPERVISION).supervision.item() == 0


def test_vision_features_are_the_last_layer_but_one() -> None:
    model = student()
    whole = SiglipVisionModel(model.family.vision_config).eval()
    state = {**whole.state_dict(), **model.vision_tower.state_dict()}
    whole.load_state_dict(state)
    pixels = torch.rand(1, 3, 384, 384)
    with torch.no_grad():
        expected = whole(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(model.vision_tower(pixels).last_hidden_state, expected)


def test_newlines_close_rows_and_can_be_dropped() -> None:
    grid = torch.rand(2, 14, 14, 3)
    module = NewlineTokens(3)
    tokens = module(grid)
    assert tokens.shape == (2 * 210, 3)
    assert torch.equal(tokens[14], module.image_newline)
    assert torch.equal(tokens[210 + 15], grid[1, 1, 0])
    assert torch.equal(token_grid(tokens, LLAVA_GRID), grid)


def test_pooling_equals_loops() -> None:
    fine = torch.rand(1, 27, 27, 2)
    result = pool(fine, 14)
    for row, column in ((0, 0), (6, 9), (13, 13), (13, 2)):
        y, x = (row + 0.5) * 27 / 14 - 0.5, (column + 0.5) * 27 / 14 - 0.5
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, 26), min(x0 + 1, 26)
        dy, dx = y - y0, x - x0
        top = fine[0, y0, x0] * (1 - dx) + fine[0, y0, x1] * dx
        bottom = fine[0, y1, x0] * (1 - dx) + fine[0, y1, x1] * dx
        torch.testing.assert_close(result[0, row, column], top * (1 - dy) + bottom * dy)


def test_supervised_layer() -> None:
    model, packed = student(), pack([TEXT])
    by_layer = {}
    with torch.no_grad():
        for layer in ("last", 0, 1, 2):
            settings = SupervisionSettings(layer=layer)
            by_layer[layer] = model(packed, settings).supervision.item()
        captured = []
        handle = model.language_model.model.layers[1].register_forward_hook(
            lambda _, __, output: captured.append(output[0])
        )
        model(packed, SUPERVISION)
        handle.remove()
        before = len(packed.samples[0].prefix.before_ids)
        grid = token_grid(captured[0][before : before + 2 * 210], LLAVA_GRID)
        assert model.proj_3d is not None
        assert packed.scene.teacher_VGGC is not None
        expected = supervision_loss(
            model.proj_3d(grid), packed.scene.teacher_VGGC, SUPERVISION, "s"
        )
    assert by_layer[2] == by_layer["last"]
    assert by_layer[1] == pytest.approx(expected.item(), rel=1e-6)
    assert len(set(by_layer.values())) == 3
    with pytest.raises(ConfigError, match="valid: last, or 0 to 2"):
        model(packed, SupervisionSettings(layer=3))


@pytest.mark.parametrize("loss", ["l2", "cosine", "both"])
def test_frames_without_features_are_in_no_mean_of_the_loss(loss: str) -> None:
    model, settings = student(), SupervisionSettings(loss=loss)
    whole = pack([TEXT], scene(frames=3))
    assert whole.scene.teacher_VGGC is not None
    rows = [0, 2]
    part = replace(
        whole.scene,
        teacher_VGGC=whole.scene.teacher_VGGC[[2, 1]],
        supervised_S=torch.tensor(rows),
    )
    captured: list[torch.Tensor] = []
    assert model.proj_3d is not None
    with torch.no_grad():
        handle = model.proj_3d.register_forward_hook(lambda _, __, output: captured.append(output))
        model(whole, settings)
        found = model(replace(whole, scene=part), settings).supervision
        handle.remove()
    distances = []  # token by token, as the definition says
    for row, teacher in zip(rows, (2, 1), strict=True):
        for i in range(14):
            for j in range(14):
                p = captured[0][row, i, j].double()
                t = whole.scene.teacher_VGGC[teacher, i, j].double()
                cosine = (p @ t / p.norm() / t.norm()).item()
                distances.append({"l2": 2 - 2 * cosine, "cosine": 1 - cosine}.get(loss))
                if loss == "both":
                    distances[-1] = 3 - 3 * cosine
    assert found.item() == pytest.approx(sum(distances) / len(distances), rel=1e-5)


@pytest.mark.parametrize("kept_layers", [0, 2, 99])
def test_gradient_checkpointing_changes_nothing(kept_layers: int) -> None:
    packed, settings = pack(MIXED[:2]), SupervisionSettings(layer=1)
    plain, recomputing = student(), student()
    recomputing.gradient_checkpointing_enable(kept_layers)
    layers = recomputing.language_model.model.layers
    kept = [not layer.gradient_checkpointing for layer in layers]
    assert kept == [number >= 3 - kept_layers for number in range(3)]
    for model in (plain, recomputing):
        model.train()
        model(packed, settings).total(1.0).backward()
    for (name, a), (_, b) in zip(
        plain.named_parameters(), recomputing.named_parameters(), strict=True
    ):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_parameter_groups_hold_every_parameter_once() -> None:
    model = student()
    groups = model.parameter_groups()
    assert list(groups) == ["vision_tower", "projector", "language_model", "heads"]
    listed = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())
    assert any(p is model.newline_tokens.image_newline for p in groups["projector"])


def test_bfloat16_runs_with_float32_losses() -> None:
    with torch.no_grad():
        exact = student()(pack(MIXED), SUPERVISION)
        losses = student().bfloat16()(pack(MIXED), SUPERVISION)
    for half, full in zip(losses[:3], exact[:3], strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


def test_a_cast_leaves_rotary_frequencies_exact() -> None:
    # In bfloat16 the frequency of the first channel pairs is off by up to 0.4 %.
    exact = student().language_model.model.rotary_emb.inv_freq
    half = student().bfloat16().float().language_model.model.rotary_emb
    assert half.inv_freq.dtype == torch.float32
    assert torch.equal(half.inv_freq, exact)


def test_fused_layers_equal_transformers() -> None:
    model = student()
    plain = Qwen2ForCausalLM(model.text_config)
    plain.config._attn_implementation = "eager"
    plain.load_state_dict(model.language_model.state_dict())
    tokens = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain.model(inputs_embeds=tokens[None]).last_hidden_state[0]
        model.language_model.config._attn_implementation = PACKED
        found, _ = model.run_language_model(tokens, torch.arange(9)[None], None)
    torch.testing.assert_close(found, expected)


def test_coordinate_reaches_the_model() -> None:
    model = student()
    box = [0.5, -1.25, 0.75, 1.0, 1.0, 1.0]
    moved = record(CAPTION.human, CAPTION.answer, box_input=[2.5, *box[1:]])
    with torch.no_grad():
        losses = model(pack([CAPTION, moved]), SUPERVISION)
    assert losses.text_K[0] != losses.text_K[1]


def test_teacher_features_without_a_head_for_them() -> None:
    with pytest.raises(ConfigError, match="no projection head"):
        student(teacher_channels=0)(pack([TEXT]), SUPERVISION)


def test_scene_moves_as_a_whole() -> None:
    moved = scene().to("meta")
    assert isinstance(moved, SceneInputs)
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6
    assert all(value.device.type == "meta" for value in tensors)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"name": "llava"}, ConfigError, "model.name is 'llava'; choose one of: llava-video"),
        ({"size": "13b"}, ConfigError, "choose one of: tiny, small, 7b"),
        ({"attention": "xla"}, ConfigError, "choose one of: auto, sdpa, flash"),
        ({"coordinate_dtype": "int8"}, ConfigError, "choose one of: float32, bfloat16, float16"),
        ({"seed": -1}, ConfigError, "model.seed: -1 is less than"),
        ({"size": "7b"}, CheckpointError, "LLaVA-Video-7B-Qwen2 .*16 GB, Apache-2.0.*model.path"),
        (
            {"size": "7b", "name": "llava-onevision"},
            CheckpointError,
            "fetch lmms-lab/llava-onevision-qwen2-7b-ov .*random_weights: true",
        ),
        ({"size": "7b", "name": "qwen2-vl"}, CheckpointError, "Qwen/Qwen2-VL-7B-Instruct"),
        ({"random_weights": True, "path": Path("m")}, ConfigError, "model.path names a checkpoint"),
    ],
)
def test_bad_settings(values: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ModelSettings(**values)


def test_settings_from_config() -> None:
    config = {
        "model": {
            "name": "qwen2-vl",
            "size": "tiny",
            "path": None,
            "grid": 7,
            "attention": "flash",
            "random_weights": True,
        },
        "geometry": {"coordinate_dtype": "bfloat16"},
        "train": {"seed": 7},
        "supervision": {"weight": 0.5, "loss": "both", "layer": 1},
    }
    settings = ModelSettings.from_config(config)
    assert (settings.name, settings.grid, settings.attention) == ("qwen2-vl", 7, "flash")
    assert settings.random_weights
    assert (settings.seed, settings.coordinate_dtype, settings.path) == (7, "bfloat16", None)
    supervision = SupervisionSettings(**config["supervision"])
    assert (supervision.weight, supervision.loss, supervision.layer) == (0.5, "both", 1)
