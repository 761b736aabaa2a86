"""Layers with fused parts and those of a model that only answers, against transformers' own."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from transformers import DynamicCache

from fixtures.plain_answers import family_student
from threedrs.errors import ConfigError
from threedrs.models.backbones.fused_layers import (
    fuse,
    fuse_projections,
    join_parameters,
    turned_heads,
)
from threedrs.models.student import Student

FAMILIES = ("llava-video", "qwen2-vl")


def test_heads_turn_as_pairs_of_numbers_turn_in_the_plane() -> None:
    torch.manual_seed(0)
    heads_THd, angle_Th = torch.randn(3, 2, 8), torch.randn(3, 4)
    angle_Td = torch.cat([angle_Th, angle_Th], -1)
    turned_THd = turned_heads(heads_THd, angle_Td.cos(), angle_Td.sin())
    for token in range(3):
        for head in range(2):
            for pair in range(4):
                # Channels 4 apart are the two coordinates, and the rotary embedding turns them.
                number = torch.complex(*heads_THd[token, head, pair::4])
                expected = number * torch.polar(torch.ones(()), angle_Th[token, pair])
                found = torch.complex(*turned_THd[token, head, pair::4])
                torch.testing.assert_close(found, expected)


def test_joined_parameters_lie_end_to_end_and_keep_their_values() -> None:
    matrix = torch.nn.Parameter(torch.arange(6.0).view(3, 2).T)  # not contiguous
    row = torch.nn.Parameter(torch.tensor([7.0, 8.0]), requires_grad=False)
    flat = join_parameters([matrix, row])
    assert flat.tolist() == [0, 2, 4, 1, 3, 5, 7, 8]
    assert not flat.requires_grad
    assert matrix.tolist() == [[0, 2, 4], [1, 3, 5]]
    flat += 1  # they are the same memory
    assert matrix.tolist() == [[1, 3, 5], [2, 4, 6]]
    assert row.tolist() == [8, 9]


def _language_model(name: str, **sizes: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=50,
        pad_token_id=None,
        **sizes,
    )
    return getattr(transformers, f"{name}ForCausalLM")(config)


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("GptOss", {}, "GptOssAttention has a part sinks,"),  # a parameter, not a module
        ("Qwen3Moe", {"num_experts": 2}, "Qwen3MoeSparseMoeBlock has a part experts,"),
        ("Qwen2", {"hidden_act": "gelu"}, "Qwen2MLP has the activation GELUActivation,"),
        ("Olmo2", {}, "Olmo2DecoderLayer has no part input_layernorm,"),
        ("StableLm", {}, "LayerNorm has a part bias,"),
    ],
)
def test_another_language_model_is_refused_and_stays_as_it_is(
    name: str, sizes: dict[str, Any], said: str
) -> None:
    model = _language_model(name, **sizes)
    with pytest.raises(ConfigError) as refused:
        fuse(model)
    assert f"model.name: the backbone's {said}" in str(refused.value)
    assert "docs/ADD_A_BACKBONE.md" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("part", "said"), [("gate", "a part gate"), ("k_norm", "a part k_norm")])
def test_an_attention_with_a_part_more_is_refused(part: str, said: str) -> None:
    """A norm of keys without one of queries too, which no pass computes."""
    model = _language_model("Qwen2")
    setattr(model.model.layers[1].self_attn, part, torch.nn.Identity())
    with pytest.raises(ConfigError, match=f"Qwen2Attention has {said},"):
        fuse(model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_an_attention_without_a_part_is_refused() -> None:
    model = _language_model("Qwen3")
    del model.model.layers[1].self_attn.o_proj
    with pytest.raises(ConfigError, match="Qwen3Attention has no part o_proj,"):
        fuse(model)


@torch.no_grad()
def _run(model: Student, tokens_TD: torch.Tensor) -> list[torch.Tensor]:
    """Return the last hidden states, and each layer's keys and values."""
    cache = DynamicCache(config=model.text_config)
    index = model.family.position_ids(torch.arange(len(tokens_TD))[None], 2, 0)
    # The answering layers change what they are given.
    hidden_TD, _ = model.run_language_model(tokens_TD.clone(), index, None, cache=cache)
    return [hidden_TD, *(one for layer in cache.layers for one in (layer.keys, layer.values))]


@pytest.mark.parametrize("name", FAMILIES)
def test_answering_layers_give_hidden_states_and_keys_of_plain_ones(name: str) -> None:
    plain, _, _ = family_student(name)
    answering = deepcopy(plain)
    fuse_projections(answering.language_model)
    layers = answering.language_model.model.layers
    assert all(layer.self_attn.fused and layer.mlp.fused for layer in layers)
    torch.manual_seed(0)
    tokens_TD = torch.randn(300, plain.channels)  # more than count as few
    expected, found = _run(plain, tokens_TD), _run(answering, tokens_TD)
    assert len(expected) == 1 + 2 * len(layers)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_with_a_part_more_answers_in_its_own_order(name: str) -> None:
    plain, _, _ = family_student(name)
    layer = plain.language_model.model.layers[1]
    layer.scale = torch.nn.Identity()
    layer.register_forward_hook(lambda module, inputs, output: 3 * module.scale(output))
    answering = deepcopy(plain)
    fuse_projections(answering.language_model)
    first, second, *_ = answering.language_model.model.layers
    assert "forward" in vars(first)
    assert "forward" not in vars(second)
    torch.manual_seed(0)
    tokens_TD = torch.randn(20, plain.channels)
    for one, other in zip(_run(answering, tokens_TD), _run(plain, tokens_TD), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_a_parameter_is_a_part_too() -> None:
    model = _language_model("Qwen2")
    fuse(model)
    model.model.layers[1].scale = torch.nn.Parameter(torch.ones(()))
    fuse_projections(model)
    assert ["forward" in vars(layer) for layer in model.model.layers] == [True, False]


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_that_of_transformers(name: str) -> None:
    student, _, _ = family_student(name)
    attention = student.language_model.model.layers[1].self_attn
    hidden = torch.randn(1, 23, student.channels)
    angle = torch.randn(1, 23, attention.head_dim)
    arguments = {
        "hidden_states": hidden,
        "position_embeddings": (angle.cos(), angle.sin()),
        "attention_mask": None,
    }
    expected, _ = type(attention).forward(attention, **arguments)
    found, _ = attention(**arguments)
    assert torch.equal(found, expected)
