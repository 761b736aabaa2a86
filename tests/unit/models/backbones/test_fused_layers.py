"""Layers with fused parts and those of a model that only answers, against transformers' own."""

from copy import deepcopy

import pytest
import torch
from transformers import DynamicCache

from fixtures.plain_answers import family_student
from threedrs.models.backbones.fused_layers import fuse_projections, turned_heads
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
