"""Attention inside each frame of Qwen2-VL's vision tower, all frames in one product.

As transformers writes it, a layer asks the GPU three times for the lengths of the frames, for which
the host waits, and then takes one frame after another. Here every frame has the same number of
patches, which the host knows. Queries and keys are turned in float32, as published, but in one pass
over them.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from threedrs.models.fused import run_fused


def _attend(
    attention: Any,
    hidden_PC: Tensor,
    *,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> Tensor:
    frames = len(cu_seqlens) - 1
    joined = attention.qkv(hidden_PC).unflatten(1, (3, attention.num_heads, -1))
    query, key, value = joined.unbind(1)
    query, key = run_fused(apply_rotary_pos_emb_vision, query, key, *position_embeddings)
    # (patches, heads, channels) -> (frames, heads, patches of a frame, channels)
    query, key, value = (
        part.unflatten(0, (frames, -1)).transpose(1, 2) for part in (query, key, value)
    )
    seen = nn.functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    return attention.proj(seen.transpose(1, 2).reshape(hidden_PC.shape))


def join_frames(tower: Any) -> None:
    """Let a Qwen2-VL vision tower attend in all frames at once; they have to be of one size."""
    for block in tower.blocks:
        block.attn.forward = partial(_attend, block.attn)
