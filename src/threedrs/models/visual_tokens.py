"""The visual tokens of a scene: position embedding, newline tokens, and a teacher's grid to theirs.

The 3D position embedding turns world coordinates into a sine code of the hidden size, without
parameters (3DRS, section 3.1, after Video-3D LLM).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from threedrs.models.backbones.family import VisualGrid

LOWER_CORNER = (-15.0, -15.0, -5.0)  # metres, world frame
UPPER_CORNER = (15.0, 15.0, 5.0)
VOXEL = 0.1  # metres
MOST_VOXELS = 301  # along the longest axis


class VisualTokens(NamedTuple):
    """A scene's visual tokens: as projected (V,F,F,D), and as the language model reads them."""

    fine_VFFD: Tensor
    sequence_TD: Tensor


class NewlineTokens(nn.Module):
    """Closes every row of a frame's token grid with the learned newline token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.image_newline = nn.Parameter(torch.randn(channels) * channels**-0.5)

    def forward(self, grid_VGGD: Tensor) -> Tensor:
        """Return the tokens (V*G*(G+1), D), frame by frame, row by row."""
        frames, rows, _, channels = grid_VGGD.shape
        newline = self.image_newline.to(grid_VGGD.dtype).expand(frames, rows, 1, channels)
        return torch.cat([grid_VGGD, newline], dim=2).flatten(0, 2)


def token_grid(tokens_TD: Tensor, grid: VisualGrid) -> Tensor:
    """Return the grid (V,G,G,D) of visual tokens in sequence, newline tokens dropped."""
    columns = grid.coarse + grid.newline
    return tokens_TD.unflatten(0, (-1, grid.coarse, columns))[:, :, : grid.coarse]


def pooled_teacher(teacher_VHWC: Tensor, side: int) -> Tensor:
    """Return a teacher's grid averaged to ``side`` x ``side`` tokens, in float32."""
    # A mean of the teacher's cells, not a sample of them: a token stands for all that it covers.
    if teacher_VHWC.shape[1:3] == (side, side):
        return teacher_VHWC.float()
    teacher_VCHW = teacher_VHWC.permute(0, 3, 1, 2).float()
    return nn.functional.adaptive_avg_pool2d(teacher_VCHW, side).permute(0, 2, 3, 1)


def discretise(points: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the voxel indices of ``points`` (..., 3) in metres, as int64 (..., 3).

    Points, clamp, subtraction and division all run in ``dtype``, and halves round to even. The half
    precisions reproduce a trainer that casts every float input: on rooms of 5 m they move 44 to 54
    % of the tokens by a voxel in bfloat16 and 12 to 20 % in float16. The published figure is about
    a third in training; a cast of the points alone would move 3 to 5 %.
    """
    # Axis by axis with plain numbers: a tensor of the corners, copied to a GPU, would wait for what
    # is queued there.
    axes = [
        (axis.clamp(lower, upper) - lower) / VOXEL
        for axis, lower, upper in zip(
            points.to(dtype).unbind(-1), LOWER_CORNER, UPPER_CORNER, strict=True
        )
    ]
    return torch.stack(axes, dim=-1).round().long()


def sine_embedding(voxels: Tensor, channels: int) -> Tensor:
    """Return the embedding (..., channels) float32 of voxel indices (..., 3) below `MOST_VOXELS`.

    Each axis gets ``f = channels // 3`` channels; channel j of them has the frequency
    10000^(-2 floor(j/2) / f), even channels the sine and odd ones the cosine. The channels that
    are left over stay zero.
    """
    third = channels // 3
    channel = torch.arange(third, device=voxels.device)
    frequency = 10000.0 ** (-2.0 * (channel // 2).double() / third)
    # Angles reach 300 radians: float64 keeps them exact before the result becomes float32. A scene
    # has far more tokens than an axis has voxels, so each voxel's code is computed once.
    angle = torch.arange(MOST_VOXELS, device=voxels.device)[:, None].double() * frequency
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()
    return torch.nn.functional.pad(table[voxels].flatten(-2), (0, channels - 3 * third))


def position_embedding(points: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the position embedding (..., channels) float32 of ``points`` (..., 3) in metres.

    ``dtype`` is that of the coordinate arithmetic (see `discretise`).
    """
    return sine_embedding(discretise(points, dtype), channels)
