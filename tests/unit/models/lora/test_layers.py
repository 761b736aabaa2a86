"""Adapters and trained rows on a student, against slow code."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from fixtures.adapters import LORA, logits, new_tokens, stir, with_lora
from fixtures.cpu_kernels import flash_attn_func
from fixtures.students import BOX_IDS, MIXED, scene, student, tokenizer
from threedrs.config.schema import LORA_TARGETS, LoraSettings, SupervisionSettings
from threedrs.models.attention import packed as pack_mask
from threedrs.models.attention.packed import PackMask
from threedrs.models.backbones.known_backbones import backbone_names
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.lora.layers import add_lora, merge_lora, train_only
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Pack, suffix_mask
from threedrs.models.prompt import build_sample
from threedrs.models.student import Student

SUPERVISION = SupervisionSettings(weight=0.7)


@cache
def family(name: str) -> tuple[Callable[[], Student], Pack]:
    """Return what builds the tiny student of a family, and a mixed pack for it."""

    def build() -> Student:
        return load_student(ModelSettings(name=name), teacher_channels=16)[0]

    tokens = load_student(ModelSettings(name=name))[1]
    samples = tuple(build_sample(r, BOX_IDS, tokens, label_chat_tokens=True) for r in MIXED)
    inputs = scene(frames=1, grid=build().family.grid)
    return build, Pack(scene=inputs, samples=samples)


@pytest.mark.slow
@pytest.mark.parametrize("name", backbone_names())
def test_the_start_is_the_base_model_bit_by_bit(name: str) -> None:
    build, packed = family(name)
    plain, adapted = build(), build()
    _, tokens = load_student(ModelSettings(name=name))
    add_lora(adapted, LORA, new_tokens(tokens), seed=1)
    for found, expected in zip(
        adapted(packed, SUPERVISION)[:3], plain(packed, SUPERVISION)[:3], strict=True
    ):
        assert torch.equal(found, expected)
    with torch.no_grad():
        stir(adapted)
        assert not torch.equal(
            adapted(packed, SUPERVISION).text_K, plain(packed, SUPERVISION).text_K
        )


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_and_rows_equal_slow_code(tied: bool) -> None:
    model = stir(with_lora(LoraSettings(rank=2, alpha=6, targets=("v_proj",)), tied=tied))
    state = model.language_model.state_dict()
    plain = student(tied=tied)
    weights = plain.language_model.state_dict()
    for number in range(3):
        name = f"model.layers.{number}.self_attn.v_proj"
        a_RI = state[f"{name}.lora_A.default.weight"]
        b_OR = state[f"{name}.lora_B.default.weight"]
        weights[f"{name}.weight"] += 6 / 2 * b_OR @ a_RI
    for matrix in ("model.embed_tokens", "lm_head"):
        for row, token in enumerate(new_tokens(tokenizer())):
            weights[f"{matrix}.weight"][token] = state[f"{matrix}.rows"][row]
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-5, atol=1e-5)
    merge_lora(model)
    assert set(model.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-5, atol=1e-5)


def gradients(model: Student, packs: list[Pack]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    for one in packs:
        model(one, SUPERVISION).total(SUPERVISION.weight).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {name: grad.clone() for name, grad in grads.items() if grad is not None}


def with_flash(prefix_length: int, owner_S: torch.Tensor, *_: object) -> PackMask:
    mask_11ST = suffix_mask(prefix_length, owner_S)
    return PackMask(prefix_length=prefix_length, mask_11ST=mask_11ST, flash=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attention", "checkpointing"),
    [(name, "sdpa", True) for name in backbone_names()] + [("llava-video", "flash", False)],
)
def test_packed_gradients_equal_the_sum_over_single_samples(
    monkeypatch: pytest.MonkeyPatch, name: str, attention: str, checkpointing: bool
) -> None:
    build, packed = family(name)
    model = build()
    add_lora(model, LORA, new_tokens(load_student(ModelSettings(name=name))[1]), seed=1)
    stir(model)
    trained = train_only(model, ["language_model", "heads"])
    alone = [Pack(scene=packed.scene, samples=(sample,)) for sample in packed.samples]
    single = gradients(model, alone)
    if attention == "flash":  # as flash-attn does it, with torch's kernel in its place
        monkeypatch.setattr(pack_mask, "flash_attention", lambda: flash_attn_func)
        monkeypatch.setattr("threedrs.models.student.pack_mask", with_flash)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.train()
    together = gradients(model, [packed])
    assert len(together) == sum(map(len, trained.values()))
    norm = torch.stack([gradient.norm() for gradient in single.values()]).norm()
    for parameter, expected in single.items():
        error = (together[parameter] - expected).norm()
        assert error <= 1e-5 * expected.norm() + 1e-8 * norm, parameter
    moved = [name for name, gradient in together.items() if gradient.norm() > 0]
    assert any("lora_A" in name for name in moved)
    assert "language_model.model.embed_tokens.rows" in moved
    assert "language_model.lm_head.rows" in moved


def test_only_the_named_layers_get_adapters() -> None:
    for targets in (("q_proj", "down_proj"), LORA_TARGETS):
        model = with_lora(LoraSettings(rank=3, alpha=1, targets=targets))
        named = [n for n, _ in model.named_parameters() if ".lora_A." in n]
        assert {name.split(".")[-4] for name in named} == set(targets)
        assert len(named) == 3 * len(targets)
        assert all(name.startswith("language_model.") for name in named)


def test_the_seed_decides_and_nothing_else_is_drawn() -> None:
    torch.manual_seed(0)
    first = with_lora().state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(0)
    student()
    assert torch.equal(torch.rand(1), drawn)
    second = with_lora().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
