"""Attention over a shared prefix and several suffixes, in two calls of torch's exact SDPA.

The prefix rows are plain causal attention: the fast kernels of every device apply, and no mask of
prefix x prefix size exists. Only the rows of the suffixes, a few hundred, carry a dense mask. The
cost over one sample's pass is that of the suffix rows alone. Registered with transformers under the
name `PACKED`, so that Qwen2 runs it in every layer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from threedrs.models.questions import QuestionAttention

PACKED = "threedrs_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    questions: QuestionAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from ``query`` (B, heads, Q, d) to ``key`` and ``value`` (B, key heads, T, d).

    ``attention_mask`` (1,1,S,T) bool belongs to the last S queries; the Q - S before them are
    causal among themselves. None: all queries are causal. Returns (B, Q, heads, d).
    ``questions``: the queries are tokens of a scene's questions; it knows what they attend to.
    """
    if questions is not None:
        assert scaling is not None and isinstance(module.layer_idx, int)
        return questions.attend(module.layer_idx, query, key, value, scaling), None
    rows = query.shape[2] if attention_mask is None else attention_mask.shape[2]
    split = query.shape[2] - rows
    if attention_mask is None or split == 0:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    prefix, _ = sdpa_attention_forward(
        module,
        query[:, :, :split],
        key[:, :, :split],
        value[:, :, :split],
        None,
        scaling=scaling,
        **kwargs,
    )
    groups = query.shape[1] // key.shape[1]
    suffixes = scaled_dot_product_attention(
        query[:, :, split:],
        repeat_kv(key, groups),
        repeat_kv(value, groups),
        attn_mask=attention_mask,
        scale=scaling,
    )
    return torch.cat([prefix, suffixes.transpose(1, 2)], dim=1), None


AttentionInterface.register(PACKED, packed_attention)
