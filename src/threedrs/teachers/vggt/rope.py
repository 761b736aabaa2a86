"""Two-dimensional rotary position embedding of VGGT's aggregator.

Each attention head is cut in two: the first half is rotated by a token's row, the second by its
column. Within a half of size n, channel i pairs with channel i + n/2 ("rotate half") and turns by
``position * base ** (-2 i / n)`` (RoFormer, Su et al. 2021, eq. 34, once per axis). Sine and cosine
are computed once per image size, in float32.

B any leading axes, M heads, T tokens, E channels of a head.
"""

import torch
from torch import Tensor


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
    """Return cosine and sine for :func:`rotate`, each (T, head_channels) float32."""
    half = head_channels // 2
    frequencies = base ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)
    angles_T2F = positions_T2.float()[:, :, None] * frequencies.to(positions_T2.device)
    # both members of a pair turn by the same angle, so the angles of a half are written twice
    angles_TE = torch.cat((angles_T2F, angles_T2F), dim=-1).flatten(1)
    return angles_TE.cos(), angles_TE.sin()


def rotate(x_BTME: Tensor, cosine_TE: Tensor, sine_TE: Tensor) -> Tensor:
    """Rotate queries or keys by their position; computed in float32, returned in float32."""
    x = x_BTME.float()
    row_a, row_b, column_a, column_b = x.chunk(4, dim=-1)
    turned = torch.cat((-row_b, row_a, -column_b, column_a), dim=-1)
    return x * cosine_TE[:, None] + turned * sine_TE[:, None]
