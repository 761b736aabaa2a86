"""Fused element-wise parts of the language model's layers.

As transformers writes them, a norm is six passes over the hidden states and the gate of the MLP
two, forward and again when recomputed. Here each is one.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(gate) * up


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def run_fused(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Return ``function`` of the tensors, element-wise work, as one kernel where that pays."""
    # Compiling costs seconds, which only a training on a GPU gets back.
    training = tensors[0].is_cuda and torch.is_grad_enabled()
    return (_compiled(function) if training else function)(*tensors)


def _norm(module: nn.Module, hidden: Tensor) -> Tensor:
    weight: Any = module.weight
    return nn.functional.rms_norm(hidden, weight.shape, weight, module.variance_epsilon)  # type: ignore[arg-type]


def _mlp(module: Any, hidden: Tensor) -> Tensor:
    gate, up = module.gate_proj(hidden), module.up_proj(hidden)
    return module.down_proj(run_fused(_gate, gate, up))


def fuse(language_model: Any) -> None:
    """Let a Qwen2 or Qwen2-VL language model run its norms and MLPs fused."""
    decoder = language_model.model
    norms = [decoder.norm]
    for layer in decoder.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        # A checkpoint with another activation was refused before (`config_fields`).
        assert type(layer.mlp.act_fn) is nn.SiLU or layer.mlp.config.hidden_act == "silu"
        layer.mlp.forward = partial(_mlp, layer.mlp)
    for norm in norms:
        norm.forward = partial(_norm, norm)
