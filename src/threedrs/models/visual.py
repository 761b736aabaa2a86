"""The token grid of a scene's frames: 27x27 to 14x14, newline tokens in and out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from threedrs.models.samples import COARSE


class VisualTokens(NamedTuple):
    """A scene's visual tokens: as projected (V,27,27,D), and as the language model reads them."""

    fine_VFFD: Tensor
    sequence_TD: Tensor


class NewlineTokens(nn.Module):
    """Closes every row of a frame's token grid with the learned newline token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.image_newline = nn.Parameter(torch.randn(channels) * channels**-0.5)

    def forward(self, grid_VGGD: Tensor) -> Tensor:
        """Return the tokens (V*14*15, D), frame by frame, row by row."""
        frames, rows, _, channels = grid_VGGD.shape
        newline = self.image_newline.to(grid_VGGD.dtype).expand(frames, rows, 1, channels)
        return torch.cat([grid_VGGD, newline], dim=2).flatten(0, 2)


def drop_newlines(tokens_TD: Tensor) -> Tensor:
    """Return the grid (V,14,14,D) of visual tokens in sequence (V*14*15, D)."""
    return tokens_TD.unflatten(0, (-1, COARSE, COARSE + 1))[:, :, :COARSE]


def pool(fine_VFFD: Tensor) -> Tensor:
    """Return the 27x27 token grid resized to 14x14, bilinear, corners not aligned."""
    fine_VDFF = fine_VFFD.permute(0, 3, 1, 2)
    coarse = nn.functional.interpolate(
        fine_VDFF, size=(COARSE, COARSE), mode="bilinear", align_corners=False, antialias=False
    )
    return coarse.permute(0, 2, 3, 1)
