"""DINOv2's vision transformer with registers, as far as VGGT uses it: images to patch tokens.

Oquab et al. 2023 (DINOv2) and Darcet et al. 2023 (registers). Parameter names are those of the
public checkpoints. The position embedding is stored for one square grid and resized to the
image's (bicubic, antialiased) when the two differ.

N images, P patches of a image (row by row), D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from threedrs.teachers.vggt.transformer import Block

PATCH = 14  # pixels
REGISTERS = 4


@dataclass(frozen=True, kw_only=True)
class EncoderSize:
    """Channels, blocks and attention heads of one DINOv2 encoder."""

    channels: int
    depth: int
    heads: int


ENCODERS = {
    "dinov2_vits14_reg": EncoderSize(channels=384, depth=12, heads=6),
    "dinov2_vitb14_reg": EncoderSize(channels=768, depth=12, heads=12),
    "dinov2_vitl14_reg": EncoderSize(channels=1024, depth=24, heads=16),
}


class PatchProjection(nn.Module):
    """A linear map of each 14x14-pixel patch to D channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, kernel_size=PATCH, stride=PATCH)

    def forward(self, images_N3HW: Tensor) -> Tensor:
        """Return (N, P, D)."""
        return self.proj(images_N3HW).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINOv2 encoder of ``size``; its position embedding is stored for ``img_size`` pixels."""

    def __init__(self, size: EncoderSize, *, img_size: int) -> None:
        super().__init__()
        self.stored_grid = img_size // PATCH
        self.patch_embed = PatchProjection(size.channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.stored_grid**2, size.channels))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, size.channels))
        # used by DINOv2's own training only; here so that checkpoints load without exception
        self.mask_token = nn.Parameter(torch.zeros(1, size.channels))
        form = size.channels, size.heads
        self.blocks = nn.ModuleList(
            Block(*form, norm_epsilon=1e-6, layer_scale=1.0, query_key_norm=False)
            for _ in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.channels, eps=1e-6)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding of class token and patches, (1, 1 + P, D) float32."""
        stored = self.pos_embed.float()
        if rows == columns == self.stored_grid:
            return stored
        grid_1DRC = stored[:, 1:].transpose(1, 2).unflatten(2, (self.stored_grid, self.stored_grid))
        resized_1DRC = functional.interpolate(
            grid_1DRC, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False
        )
        return torch.cat((stored[:, :1], resized_1DRC.flatten(2).transpose(1, 2)), dim=1)

    def forward(self, images_N3HW: Tensor) -> Tensor:
        """Return the patch tokens after the final norm, (N, P, D), of normalised images.

        Their sides are multiples of 14 pixels.
        """
        N, _, H, W = images_N3HW.shape
        patches_NPD = self.patch_embed(images_N3HW)
        x_NTD = torch.cat((self.cls_token.expand(N, -1, -1), patches_NPD), dim=1)
        # Positions before the registers, which have none.
        x_NTD = x_NTD + self.positions(H // PATCH, W // PATCH)
        registers_NRD = self.register_tokens.expand(N, -1, -1)
        x_NTD = torch.cat((x_NTD[:, :1], registers_NRD, x_NTD[:, 1:]), dim=1)
        for block in self.blocks:
            x_NTD = block(x_NTD)
        return self.norm(x_NTD)[:, 1 + REGISTERS :]
