"""Exact attention by the fastest kernel that the machine has, and its rotary position embedding.

On Hopper GPUs FlashAttention-3 where it can be imported (from its own package or from the
forward-only build ``fa3-fwd``), else torch's fused kernels, cuDNN's first. For the 33,312 tokens of
a scene of 32 frames, one layer on an H100: FlashAttention-3 8.4 ms, cuDNN 10.6 ms, FlashAttention-2
14.1 ms. On a CPU torch's own kernel.

The embedding has two dimensions. Each attention head is cut in two: the first half is rotated by a
token's row, the second by its column. Within a half of size n, channel i pairs with channel
i + n/2 ("rotate half") and turns by ``position * base ** (-2 i / n)`` (RoFormer, Su et al. 2021,
eq. 34, once per axis). Sine and cosine are computed once per image size, in float32.

N sequences, B any leading axes, T tokens, M heads, E channels of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional

from threedrs.models.attention.kernels import fast_kernels, flash_attention_3


def kernel_name() -> str:
    """Return in words what :func:`attend` uses on this machine, for the log."""
    if not torch.cuda.is_available():
        return "torch's attention"
    return "FlashAttention-3" if flash_attention_3() is not None else "torch's attention (cuDNN)"


def attend(q_NTME: Tensor, k_NTME: Tensor, v_NTME: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(E)) v for each head, (N, T, M, E)."""
    # FlashAttention-3 takes half precision only; a CPU run in float32 must not meet it.
    flash = flash_attention_3() if v_NTME.dtype == torch.bfloat16 and v_NTME.is_cuda else None
    if flash is not None:
        out = flash(q_NTME, k_NTME, v_NTME)
        return out[0] if isinstance(out, tuple) else out
    q, k, v = (x.transpose(1, 2) for x in (q_NTME, k_NTME, v_NTME))
    with fast_kernels():
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def grid_positions(rows: int, columns: int, special_tokens: int) -> Tensor:
    """Return the (row, column) of each token of a frame, (special_tokens + rows * columns, 2) i64.

    Special tokens come first, at (0, 0); the patch in row r and column c is at (r + 1, c + 1).
    """
    row_RC, column_RC = torch.meshgrid(
        torch.arange(1, rows + 1), torch.arange(1, columns + 1), indexing="ij"
    )
    patches_P2 = torch.stack((row_RC.flatten(), column_RC.flatten()), dim=-1)
    return torch.cat((patches_P2.new_zeros(special_tokens, 2), patches_P2))


def rotation_tables(positions_T2: Tensor, head_channels: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine for :func:`rotate`, each (T, head_channels) float32.

    The sine of a pair's first member is negative: that member takes less of the other.
    """
    half = head_channels // 2
    frequencies = base ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)
    angles_T2F = positions_T2.float()[:, :, None] * frequencies.to(positions_T2.device)
    cosine_T2F, sine_T2F = angles_T2F.cos(), angles_T2F.sin()
    # both members of a pair turn by the same angle, so the values of a half are written twice
    cosine_TE = torch.cat((cosine_T2F, cosine_T2F), dim=-1).flatten(1)
    return cosine_TE, torch.cat((-sine_T2F, sine_T2F), dim=-1).flatten(1)


def rotate(x_BTME: Tensor, cosine_TE: Tensor, sine_TE: Tensor) -> Tensor:
    """Rotate queries or keys by their position; computed in float32, returned in float32."""
    x = x_BTME.float()
    # The compiler reads the members of a pair in each other's place, where it would write a
    # concatenation of them to the GPU's memory first.
    swapped = x.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
    return x * cosine_TE[:, None] + swapped * sine_TE[:, None]
