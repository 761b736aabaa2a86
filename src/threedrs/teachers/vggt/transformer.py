"""The transformer block shared by DINOv2's encoder and VGGT's aggregator.

``x + ls1(attn(norm1(x)))`` then ``x + ls2(mlp(norm2(x)))``. Attention is exact and fused, so its
memory grows with the number of tokens, not with its square. The residual stream keeps the dtype of
its input: with bfloat16 linear layers it stays float32, as do the norms, the layer scales and the
rotation. What lies between the matrix products is some twenty passes over the tokens a block; on a
GPU `compile_blocks` has torch.compile fuse them.

N sequences, T tokens, D channels, M heads, E channels of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from threedrs.models.compiled import compiled
from threedrs.teachers.vggt.attention import attend, rotate

# A normed query has five reads (itself, its mean and variance, factor and offset) and is used twice
# by its rotation. At the compiler's threshold of four it would be written to memory in float32.
FUSION = {"realize_reads_threshold": 5}
MOST_GRAPHS = 64  # of one function: three kinds of blocks in 21 sizes


class LayerScale(nn.Module):
    """A learned factor per channel (CaiT, Touvron et al. 2021, eq. 4)."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x_NTD: Tensor) -> Tensor:
        """Return ``x_NTD`` times the factors."""
        return x_NTD * self.gamma


class Mlp(nn.Module):
    """Two linear layers, four times as wide between them, with exact GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x_NTD: Tensor) -> Tensor:
        """Return (N, T, D)."""
        return self.fc2(functional.gelu(self.fc1(x_NTD)))


class Attention(nn.Module):
    """Multi-head self-attention; VGGT's has norms on queries and keys and a rotary embedding."""

    def __init__(self, channels: int, heads: int, *, query_key_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.q_norm = nn.LayerNorm(channels // heads) if query_key_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(channels // heads) if query_key_norm else nn.Identity()
        self.proj = nn.Linear(channels, channels)
        self.attend = attend

    def projections(
        self, x_NTD: Tensor, rotation: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values for ``attend``, each (N, T, M, E).

        ``rotation`` holds the tables of `rotation_tables`, each (T, E).
        """
        N, T, D = x_NTD.shape
        qkv_NT3ME = self.qkv(x_NTD).view(N, T, 3, self.heads, D // self.heads)
        q, k, v = qkv_NT3ME.unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        return q.to(v.dtype), k.to(v.dtype), v


class Block(nn.Module):
    """A pre-norm transformer block with layer scale."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        norm_epsilon: float,
        layer_scale: float,
        query_key_norm: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=norm_epsilon)
        self.attn = Attention(channels, heads, query_key_norm=query_key_norm)
        self.ls1 = LayerScale(channels, layer_scale)
        self.norm2 = nn.LayerNorm(channels, eps=norm_epsilon)
        self.mlp = Mlp(channels)
        self.ls2 = LayerScale(channels, layer_scale)

    def forward(self, x_NTD: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return (N, T, D), in the dtype of ``x_NTD`` promoted with the layer scales'."""
        # The attention is called here and not within `Attention`: the compiler stops at it, and so
        # fuses all that stands before it in a block, and all that stands behind.
        q, k, v = self.attn.projections(self.norm1(x_NTD), rotation)
        attended_NTD = self.attn.attend(q, k, v).flatten(2)
        x_NTD = x_NTD + self.ls1(self.attn.proj(attended_NTD))
        return x_NTD + self.ls2(self.mlp(self.norm2(x_NTD)))


def compile_blocks(model: nn.Module, backend: Any = "inductor") -> None:
    """Have torch.compile fuse what lies between the matrix products of every block.

    A scene of VGGT-1B takes 422 ms with it and 572 ms without on an H200 (benchmarks/RESULTS.md).
    The blocks are compiled at their first pass: some 15 s once on a machine, 3 s from torch's cache
    after that.
    """
    # The fastest attention kernel is chosen by hand and is not to be traced.
    untraced = torch.compiler.disable(attend)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        block.attn.attend = untraced
    # All scenes of a run have images of a few sizes, so each gets code of its own.
    options = {"dynamic": False, "backend": backend, "options": FUSION}
    forwards = compiled([block.forward for block in blocks], "transformer blocks", **options)
    for block, forward in zip(blocks, forwards, strict=True):
        block.forward = forward  # type: ignore[method-assign]
    # Torch compiles a function eight times and runs it uncompiled after that. Here one function has
    # code for each kind of block and size. The limit counts for all of the process, so it is
    # another one only while this model runs.
    model.forward = torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS)(model.forward)
