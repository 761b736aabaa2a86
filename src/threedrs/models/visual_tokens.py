"""The token grids of a scene's frames: newline tokens in and out, a teacher's grid to another."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from threedrs.models.grid import VisualGrid


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
    if teacher_VHWC.shape[1:3] == (side, side):
        return teacher_VHWC.float()
    teacher_VCHW = teacher_VHWC.permute(0, 3, 1, 2).float()
    return nn.functional.adaptive_avg_pool2d(teacher_VCHW, side).permute(0, 2, 3, 1)
