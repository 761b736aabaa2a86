"""The layers of the language models, with element-wise parts that run fused.

As transformers writes them, a norm is six passes over the hidden states, the gate of the MLP two
and the rotation of queries and keys ten, forward and again when recomputed. Here each is one. The
norm is torch's own fused operator. Layers of a model that only answers pass over the hidden states
still less often.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.activations import SiLUActivation
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from threedrs.errors import ConfigError
from threedrs.models.attention.packed import packed_attention
from threedrs.models.compiled import run_fused

QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")
GATE_UP = ("gate_proj", "up_proj")
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}  # parts of a layer
ATTENTION = {*QUERY_KEY_VALUE, "o_proj"}  # of its attention
HEAD_NORMS = {"q_norm", "k_norm"}  # which some attentions have besides
MLP = {*GATE_UP, "down_proj", "act_fn"}  # of its MLP
SILU = (nn.SiLU, SiLUActivation)  # what `_gate` computes
FEW_TOKENS = 256  # up to which reading the weights takes longer than multiplying with them


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(gate) * up


def _norm(module: nn.Module, hidden: Tensor) -> Tensor:
    weight: Any = module.weight
    return nn.functional.rms_norm(hidden, weight.shape, weight, module.variance_epsilon)  # type: ignore[arg-type]


def _mlp(module: Any, hidden: Tensor) -> Tensor:
    return module.down_proj(_gated(module, hidden))


def _gated(mlp: Any, hidden: Tensor) -> Tensor:
    """Return what the last product of an MLP takes in."""
    # Of many tokens the gate takes longer on two halves of one tensor than on two tensors.
    if mlp.fused is not None and hidden.shape[-2] <= FEW_TOKENS:
        gate, up = mlp.fused(hidden).chunk(2, -1)
    else:
        gate, up = mlp.gate_proj(hidden), mlp.up_proj(hidden)
    return run_fused(_gate, gate, up)


def _attention(module: Any, *, hidden_states: Tensor, **arguments: Any) -> tuple[Tensor, None]:
    return module.o_proj(_attended(module, hidden_states, **arguments)), None


def _attended(
    attention: Any,
    hidden_BTD: Tensor,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    past_key_values: Cache | None = None,
    passes: Any = None,
    **arguments: Any,
) -> Tensor:
    """Return what the last product of an attention layer takes in (B,T,C)."""
    if passes is not None:
        return passes.attend(attention, hidden_BTD)
    turned = _turned_apart if attention.fused is None else _turned_together
    query, key, value = turned(attention, hidden_BTD, *position_embeddings)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, attention.layer_idx)
    seen, _ = packed_attention(attention, query, key, value, scaling=attention.scaling, **arguments)
    return seen.flatten(-2)


def _turned_apart(
    attention: Any, hidden_BTD: Tensor, cos_BTd: Tensor, sin_BTd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value (B,heads,T,d), turned by the rotary embedding."""
    heads = (*hidden_BTD.shape[:-1], -1, attention.head_dim)
    query, key, value = (
        getattr(attention, name)(hidden_BTD).view(heads) for name in QUERY_KEY_VALUE
    )
    if hasattr(attention, "q_norm"):  # Qwen3 has norms of them, Qwen2 has not
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    query, key = run_fused(apply_rotary_pos_emb, query, key, cos_BTd, sin_BTd)
    return query, key, value


def _turned_together(
    attention: Any, hidden_1TD: Tensor, cos_1Td: Tensor, sin_1Td: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same where query, key and value are one product."""
    heads_THd = query_key_value(attention, hidden_1TD)[0].unflatten(1, (-1, attention.head_dim))
    keys = attention.k_proj.out_features // attention.head_dim
    queried_THd = normed_heads(attention, heads_THd[:, :-keys], keys)
    turned_1HTd = turned_heads(queried_THd, cos_1Td[0], sin_1Td[0]).transpose(0, 1)[None]
    value = heads_THd[:, -keys:].transpose(0, 1)[None]
    return turned_1HTd[:, :-keys], turned_1HTd[:, -keys:], value


def fuse(language_model: Any) -> None:
    """Let a language model run its norms and MLPs fused, and its attention in `TokenPasses`.

    Raises:
        ConfigError: a layer computes something else than what would take its place.
    """
    decoder = language_model.model
    norms = [decoder.norm]
    # Other parts would mean other numbers, so all this comes before anything is replaced.
    for layer in decoder.layers:
        for name in sorted(LAYER - _parts(layer)):  # one with more of them is run as it is written
            raise _refusal(layer, f"no part {name}")
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        _check_parts(layer.self_attn, ATTENTION, ATTENTION | HEAD_NORMS)
        _check_parts(layer.mlp, MLP)
        if not isinstance(layer.mlp.act_fn, SILU):
            raise _refusal(layer.mlp, f"the activation {type(layer.mlp.act_fn).__name__}")
    for norm in norms:
        _check_parts(norm, {"weight"})
        if not hasattr(norm, "variance_epsilon"):
            raise _refusal(norm, "no variance_epsilon")
    for layer in decoder.layers:
        layer.mlp.fused = layer.self_attn.fused = None
        layer.mlp.forward = partial(_mlp, layer.mlp)
        layer.self_attn.forward = partial(_attention, layer.self_attn)
    for norm in norms:
        norm.forward = partial(_norm, norm)


def _parts(module: nn.Module) -> set[str]:
    """Return the names of the modules and parameters directly in ``module``."""
    own = module.named_parameters(recurse=False)
    return {name for name, _ in chain(module.named_children(), own)}


def _check_parts(module: nn.Module, *known: set[str]) -> None:
    """Check that the parts of ``module`` are one of the ``known`` sets.

    Raises:
        ConfigError: they are not; it names one that is not in the nearest set, or is not found.
    """
    found = _parts(module)
    nearest = min(known, key=lambda parts: len(parts ^ found))
    for name in sorted(found - nearest):
        raise _refusal(module, f"a part {name}")
    for name in sorted(nearest - found):
        raise _refusal(module, f"no part {name}")


def _refusal(module: nn.Module, what: str) -> ConfigError:
    return ConfigError(
        f"model.name: the backbone's {type(module).__name__} has {what}, so fused layers would "
        "compute other numbers; build its language model of layers as docs/ADD_A_BACKBONE.md "
        "lists them, or choose another backbone"
    )


def query_key_value(attention: Any, hidden: Tensor) -> Tensor:
    """Return an attention layer's query, key and value side by side in the last axis."""
    if attention.fused is not None:
        return attention.fused(hidden)
    return torch.cat([getattr(attention, name)(hidden) for name in QUERY_KEY_VALUE], -1)


def normed_heads(attention: Any, heads_THd: Tensor, keys: int) -> Tensor:
    """Return query and key heads after the layer's norms, which Qwen3 has and Qwen2 has not.

    The last ``keys`` heads are those of keys.
    """
    if not hasattr(attention, "q_norm"):
        return heads_THd
    normed = attention.q_norm(heads_THd[:, :-keys]), attention.k_norm(heads_THd[:, -keys:])
    return torch.cat(normed, 1)


def turned_heads(heads_THd: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> Tensor:
    """Return query and key heads turned by the rotary embedding, in three passes over them."""
    first, second = heads_THd.chunk(2, -1)
    first_sin, second_sin = sin_Td[:, None].chunk(2, -1)
    turned = heads_THd * cos_Td[:, None]
    first_turned, second_turned = turned.chunk(2, -1)
    first_turned.addcmul_(second, first_sin, value=-1)
    second_turned.addcmul_(first, second_sin)
    return turned


@torch.no_grad()
def fuse_projections(language_model: Any) -> None:
    """Let a layer's query, key and value be one product, and in token passes its gate and up one.

    For a model that only answers, on the device where it stays: its weights become parts of a
    larger tensor, which an optimizer would not follow, and its layers change the embeddings that
    they are given. Layers with adapters stay as they are, and one with parts besides its attention,
    its MLP and their norms has its own order of them.
    """
    for layer in language_model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        inner = {
            attention: [getattr(attention, name) for name in QUERY_KEY_VALUE],
            mlp: [getattr(mlp, name) for name in GATE_UP],
        }
        last = [attention.o_proj, mlp.down_proj]
        if any(type(linear) is not nn.Linear for linear in chain(last, *inner.values())):
            continue
        for module, linears in inner.items():
            # Rows end to end are the rows of one matrix.
            rows = join_parameters([linear.weight for linear in linears])
            weight = rows.view(-1, linears[0].in_features)
            bias = None
            if linears[0].bias is not None:
                bias = join_parameters([linear.bias for linear in linears])
            module.fused = partial(nn.functional.linear, weight=weight, bias=bias)
        # `_answering_layer` writes a layer out, and other parts would mean other numbers.
        if _parts(layer) == LAYER and all(linear.bias is None for linear in last):
            layer.forward = partial(_answering_layer, layer)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the parts that were: no later tensor would fit into all of them


def _answering_layer(layer: Any, hidden_1TD: Tensor, **arguments: Any) -> Tensor:
    """Return a layer's output, in the memory of its input."""
    attention, mlp = layer.self_attn, layer.mlp
    # A product that adds as it writes spares a pass over the hidden states.
    hidden_TD = hidden_1TD[0]
    attended_1TC = _attended(attention, layer.input_layernorm(hidden_1TD), **arguments)
    hidden_TD.addmm_(attended_1TC[0], attention.o_proj.weight.T)
    gated_1TM = _gated(mlp, layer.post_attention_layernorm(hidden_1TD))
    hidden_TD.addmm_(gated_1TM[0], mlp.down_proj.weight.T)
    return hidden_1TD


@torch.no_grad()
def join_parameters(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return one flat tensor of the elements of ``parameters``, which become views of it."""
    counts = [parameter.numel() for parameter in parameters]
    flat = parameters[0].new_empty(sum(counts))
    # Each lets go of its own memory as soon as it is copied, so no second copy of all stays.
    for parameter, part in zip(parameters, flat.split(counts), strict=True):
        part.copy_(parameter.flatten())
        parameter.data = part.view_as(parameter)
    return flat
