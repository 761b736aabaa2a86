"""The attention of the student's language model: one sample, a pack of samples, or questions.

Registered with transformers under the name `PACKED`, so that the language model runs it in every
layer. One sample is plain causal attention; what the tokens of a pack attend to is in `pack_mask`,
those of a scene's questions in `questions`.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from threedrs.models.attention.packed import PackMask, fast_kernels, pack_mask
from threedrs.models.attention.question_decoding import QuestionAttention

__all__ = ["PACKED", "PackMask", "pack_mask", "packed_attention"]

PACKED = "threedrs_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: PackMask | None,
    scaling: float | None = None,
    questions: QuestionAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from ``query`` (B, heads, Q, d) to ``key`` and ``value`` (B, key heads, T, d).

    Without ``attention_mask`` all queries are causal. Returns (B, Q, heads, d).
    ``questions``: the queries are tokens of a scene's questions; it knows what they attend to.
    """
    if questions is not None:
        assert scaling is not None
        assert isinstance(module.layer_idx, int)
        return questions.attend(module.layer_idx, query, key, value, scaling), None
    if attention_mask is not None:
        assert scaling is not None
        return attention_mask.attend(query, key, value, scaling), None
    with fast_kernels():
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **kwargs)


AttentionInterface.register(PACKED, packed_attention)
