"""The transformer block shared by DINOv2's encoder and VGGT's aggregator.

``x + ls1(attn(norm1(x)))`` then ``x + ls2(mlp(norm2(x)))``. Attention is exact and fused, so its
memory grows with the number of tokens, not with its square. The residual stream keeps the dtype of
its input: with bfloat16 linear layers it stays float32, as do the norms, the layer scales and the
rotation. On a GPU with bfloat16 linear layers, what lies between the matrix products goes through
`threedrs.teachers.vggt.kernels`; everywhere else through the plain functions here.

N sequences, T tokens, D channels, M heads, E channels of a head.
"""

import importlib.util
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from threedrs.teachers.vggt.attention import attend
from threedrs.teachers.vggt.rope import rotate


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


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

    def forward(self, x_NTD: Tensor, *, fused: bool = False) -> Tensor:
        """Return (N, T, D)."""
        hidden = self.fc1(x_NTD)
        if not fused:
            return self.fc2(functional.gelu(hidden))
        from threedrs.teachers.vggt import kernels

        return self.fc2(kernels.gelu(hidden))


class Attention(nn.Module):
    """Multi-head self-attention; VGGT's has norms on queries and keys and a rotary embedding."""

    def __init__(self, channels: int, heads: int, *, query_key_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.q_norm = nn.LayerNorm(channels // heads) if query_key_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(channels // heads) if query_key_norm else nn.Identity()
        self.proj = nn.Linear(channels, channels)

    def forward(
        self, x_NTD: Tensor, rotation: tuple[Tensor, Tensor] | None = None, *, fused: bool = False
    ) -> Tensor:
        """Return (N, T, D); ``rotation`` holds the cosine and sine, each (T, E)."""
        N, T, D = x_NTD.shape
        qkv_NT3ME = self.qkv(x_NTD).view(N, T, 3, self.heads, D // self.heads)
        q, k, v = qkv_NT3ME.unbind(2)
        if fused and rotation is not None and isinstance(self.q_norm, nn.LayerNorm):
            from threedrs.teachers.vggt import kernels

            assert isinstance(self.k_norm, nn.LayerNorm)
            q, k = kernels.norm_rotate(qkv_NT3ME, self.q_norm, self.k_norm, rotation)
        else:
            q, k = self.q_norm(q), self.k_norm(k)
            if rotation is not None:
                q, k = rotate(q, *rotation), rotate(k, *rotation)
            q, k = q.to(v.dtype), k.to(v.dtype)
        return self.proj(attend(q, k, v).reshape(N, T, D))


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
        if not (x_NTD.is_cuda and self.attn.qkv.weight.dtype == torch.bfloat16 and _has_triton()):
            x_NTD = x_NTD + self.ls1(self.attn(self.norm1(x_NTD), rotation))
            return x_NTD + self.ls2(self.mlp(self.norm2(x_NTD)))
        from threedrs.teachers.vggt import kernels

        norm1, norm2 = self.norm1, self.norm2
        normed = kernels.norm(x_NTD, norm1.weight, norm1.bias, norm1.eps)
        branch = self.attn(normed, rotation, fused=True)
        x_NTD, normed = kernels.scaled_sum_norm(
            x_NTD, branch, self.ls1.gamma, norm2.weight, norm2.bias, norm2.eps
        )
        return kernels.scaled_sum(x_NTD, self.mlp(normed, fused=True), self.ls2.gamma)
