"""The student against slow code written from its definition, and packs against single samples."""

from dataclasses import replace

import pytest
import torch
from transformers import Qwen2ForCausalLM

from fixtures.students import CAPTION, MIXED, TEXT, pack, record, scene, student
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import ConfigError
from threedrs.models.attention.packed import PACKED
from threedrs.models.backbones.family import LLAVA_GRID
from threedrs.models.heads import supervision_loss
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.visual_tokens import token_grid

SUPERVISION = SupervisionSettings(weight=0.7)


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


@pytest.mark.parametrize("kept_layers", [0, 2, 4, 99])
def test_gradient_checkpointing_changes_nothing(kept_layers: int) -> None:
    packed, settings = pack(MIXED[:2]), SupervisionSettings(layer=1)
    plain, recomputing = student(), student()
    recomputing.gradient_checkpointing_enable(kept_layers)
    tower, decoder = recomputing.vision_tower, recomputing.language_model.model
    layers = [*tower.encoder.layers, *decoder.layers]
    kept = [not layer.gradient_checkpointing for layer in layers]
    assert kept == [number >= 4 - kept_layers for number in range(4)]
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


def test_scene_moves_as_a_whole() -> None:
    moved = scene().to("meta")
    assert isinstance(moved, SceneInputs)
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6
    assert all(value.device.type == "meta" for value in tensors)
