"""VGGT's aggregator (Wang et al., CVPR 2025): frames of a scene to multi-view patch features.

DINOv2 patch tokens of each frame, plus a camera token and four register tokens, pass through pairs
of blocks: one attends within each frame, one over all frames. The output is the last pair's two
results side by side. Parameter names are those of the public checkpoint (facebook/VGGT-1B, below
``aggregator.``). Only the running tokens are kept, so memory is that of one layer; time is
dominated by the global attention, quadratic in frames times patches.

B scenes, S frames, P patches of a frame, T = 5 + P tokens of a frame, D channels.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from threedrs.teachers.teacher import IMAGENET_MEAN, IMAGENET_STD
from threedrs.teachers.vggt.attention import grid_positions, rotation_tables
from threedrs.teachers.vggt.transformer import Block
from threedrs.teachers.vggt.vision_transformer import ENCODERS, PATCH, REGISTERS, VisionTransformer

ROPE_BASE = 100.0
SPECIAL_TOKENS = 1 + REGISTERS


class VGGTAggregator(nn.Module):
    """The aggregator; the defaults are VGGT-1B's.

    Args:
        embed_dim: channels D; must be those of ``patch_embed``.
        depth: pairs of a frame block and a global block.
        num_heads: attention heads of these blocks.
        patch_embed: the DINOv2 encoder, one of ``vision_transformer.ENCODERS``.
        img_size: pixels of the square image that the position embedding is stored for.
        patch_embed_depth: blocks of the encoder; None: as many as the encoder's name says.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        patch_embed: str = "dinov2_vitl14_reg",
        img_size: int = 518,
        patch_embed_depth: int | None = None,
    ) -> None:
        super().__init__()
        size = ENCODERS[patch_embed]
        assert embed_dim == size.channels, "blocks and encoder differ in channels"
        # The rotary embedding cuts a head's channels in four, for rows and columns.
        self.head_channels = embed_dim // num_heads
        if patch_embed_depth is not None:
            size = replace(size, depth=patch_embed_depth)
        self.patch_embed = VisionTransformer(size, img_size=img_size)
        # index 0: the first frame of a scene, whose camera is the origin; index 1: all others
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, embed_dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, REGISTERS, embed_dim))

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                Block(
                    embed_dim, num_heads, norm_epsilon=1e-5, layer_scale=0.01, query_key_norm=True
                )
                for _ in range(depth)
            )

        self.frame_blocks = blocks()
        self.global_blocks = blocks()
        # an explicit device: these hold their values also where the parameters are on "meta"
        mean = torch.tensor(IMAGENET_MEAN, device="cpu").view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device="cpu").view(3, 1, 1)
        self.register_buffer("image_mean", mean, persistent=False)
        self.register_buffer("image_std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the patch features of every frame, (B, S, P, 2 D), patches row by row.

        ``images`` are (B, S, 3, H, W) float in [0, 1], H and W multiples of 14. The first half of
        the channels is the last frame block's output, the second half the last global block's.
        """
        B, S, _, H, W = images.shape
        normalised_N3HW = ((images - self.image_mean) / self.image_std).flatten(0, 1)
        patches_NPD = self.patch_embed(normalised_N3HW)
        special_NKD = self._special_tokens(B, S)
        tokens_NTD = torch.cat((special_NKD, patches_NPD.to(special_NKD.dtype)), dim=1)

        positions_T2 = grid_positions(H // PATCH, W // PATCH, SPECIAL_TOKENS)
        cosine_TE, sine_TE = rotation_tables(
            positions_T2.to(images.device), self.head_channels, ROPE_BASE
        )
        within_frame = (cosine_TE, sine_TE)
        over_scene = (cosine_TE.repeat(S, 1), sine_TE.repeat(S, 1))

        # The checkpoint's heads read four pairs of blocks, a teacher the last alone. So no list of
        # them is kept.
        of_frame_NTD = tokens_NTD
        for frame_block, global_block in zip(self.frame_blocks, self.global_blocks, strict=True):
            of_frame_NTD = frame_block(tokens_NTD, within_frame)
            of_scene_BUD = of_frame_NTD.unflatten(0, (B, S)).flatten(1, 2)
            tokens_NTD = global_block(of_scene_BUD, over_scene).unflatten(1, (S, -1)).flatten(0, 1)
        features_NPC = torch.cat(
            (of_frame_NTD[:, SPECIAL_TOKENS:], tokens_NTD[:, SPECIAL_TOKENS:]), dim=-1
        )
        return features_NPC.unflatten(0, (B, S))

    def _special_tokens(self, scenes: int, frames: int) -> Tensor:
        """Return camera and register tokens of every frame, (scenes * frames, 5, D)."""
        both_2KD = torch.cat((self.camera_token, self.register_token), dim=2)[0]
        version_S = torch.ones(frames, dtype=torch.int64, device=both_2KD.device)
        version_S[0] = 0
        return both_2KD[version_S].repeat(scenes, 1, 1)
