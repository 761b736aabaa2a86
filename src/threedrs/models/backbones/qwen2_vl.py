"""The Qwen2-VL family: its own vision transformer, patch merger and multimodal rotary embedding.

A frame is resized to 28 G x 28 G pixels (bicubic, as Qwen2-VL's own preprocessing) and stands alone
in time: the tower reads pairs of frames, so each one is given twice. The merger joins 2x2 patches
into one token: G x G tokens a frame, which the language model reads as they are; so features A and
B of an object come from the same grid, and rows get no newline token. The scene is one video: token
positions are (frame, row, column) from where it starts, and text goes on behind the largest of
them. The 384x384 frames give the native grid, 14; grid 7 costs a quarter of the visual tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    PatchMerger,
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLPreTrainedModel,
    Qwen2VLTextModel,
)
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids

from threedrs.models.backbones.base import Family
from threedrs.models.backbones.frame_attention import join_frames
from threedrs.models.checkpoint.tensor_names import QWEN2_VL_LAYOUT
from threedrs.models.fused import fuse_activations
from threedrs.models.grid import qwen2_vl_grid
from threedrs.models.packing import on_device

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the red, green and blue of its training pictures
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Qwen2VLLanguageModel(Qwen2VLPreTrainedModel):
    """Qwen2-VL's decoder with its vocabulary head, without the vision tower."""

    config: Qwen2VLTextConfig  # type: ignore[assignment]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Qwen2VLTextConfig) -> None:
        super().__init__(config)
        self.model = Qwen2VLTextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class Qwen2VLFamily(Family):
    """`qwen2-vl`."""

    name = "qwen2-vl"
    layout = QWEN2_VL_LAYOUT

    @classmethod
    def of_grid(cls, text_config: Any, vision_config: Any, side: int) -> "Qwen2VLFamily":
        """Return the family with ``side`` x ``side`` tokens a frame."""
        return cls(text_config, vision_config, qwen2_vl_grid(side))

    @property
    def run_layers(self) -> int:
        """The layers of the vision tower that run: all."""
        return self.vision_config.depth

    def language_model(self) -> PreTrainedModel:
        """Build the decoder and the vocabulary head."""
        return Qwen2VLLanguageModel(self.text_config)

    def vision_tower(self) -> PreTrainedModel:
        """Build the vision transformer; its merger is the projector."""
        tower = Qwen2VisionTransformerPretrainedModel(self.vision_config)
        tower.set_submodule("merger", nn.Identity())
        join_frames(tower)
        fuse_activations(tower)
        return tower

    def projector(self) -> nn.Module:
        """Build the patch merger."""
        config = self.vision_config
        return PatchMerger(config.hidden_size, config.embed_dim, config.spatial_merge_size)

    def fine_tokens(self, tower: nn.Module, projector: nn.Module, rgb_VHWC: Tensor) -> Tensor:
        """Return the merged tokens (V,G,G,D)."""
        config = self.vision_config
        patches = pixel_patches(
            rgb_VHWC,
            side=self.grid.fine * config.spatial_merge_size,
            patch=config.patch_size,
            merge=config.spatial_merge_size,
            repeats=config.temporal_patch_size,
        )
        side = self.grid.fine * config.spatial_merge_size
        frames = torch.tensor([[len(rgb_VHWC), side, side]])
        # Made on the host: from a GPU, transformers would ask for every frame's size and wait.
        places = get_vision_position_ids(frames, config.spatial_merge_size)
        features = tower(
            patches,
            grid_thw=frames,
            position_ids=on_device(places, rgb_VHWC.device),
            cu_seqlens=get_vision_cu_seqlens(frames),
        ).last_hidden_state
        return projector(features).unflatten(0, (-1, self.grid.fine, self.grid.fine))

    def coarse_tokens(self, fine_VFFD: Tensor) -> Tensor:
        """Return the tokens as they are."""
        return fine_VFFD

    def position_ids(self, index: Tensor, before: int, frames: int) -> Tensor:
        """Return (3,B,T): frame, row and column; the same number three times for text."""
        side = self.grid.coarse
        visual = index - before
        behind = index - frames * side**2 + max(frames, side)
        text = torch.where(visual < 0, index, behind)
        places = (visual // side**2, visual // side % side, visual % side)
        within = (visual >= 0) & (visual < frames * side**2)
        return torch.stack([torch.where(within, before + place, text) for place in places])

    def vision_sizes(self) -> tuple[int, int, int]:
        """Return the tower's patches a frame, before they are merged, width, and MLP width."""
        config = self.vision_config
        patches = (self.grid.fine * config.spatial_merge_size) ** 2
        return patches, config.embed_dim, config.embed_dim * config.mlp_ratio

    def vision_operations(self) -> tuple[float, float, float]:
        """Return the forward operations of one frame: tower, merger's first and last layer."""
        config = self.vision_config
        patches, width, inner = self.vision_sizes()
        layer = 2 * (4 * width**2 + 2 * width * inner) + 4 * width * patches
        embedding = 2 * 3 * config.temporal_patch_size * config.patch_size**2 * width
        tower = patches * (config.depth * layer + embedding)
        joined, places = config.spatial_merge_size**2 * width, self.grid.fine**2
        return tower, 2 * places * joined**2, 2 * places * joined * config.hidden_size


def pixel_patches(rgb_VHWC: Tensor, *, side: int, patch: int, merge: int, repeats: int) -> Tensor:
    """Return the patches (V*side*side, 3*repeats*patch*patch) float32 of frames, in merged order.

    The patches that the merger joins stand together; within a patch the order is colour, time,
    row, column; ``repeats`` copies of the frame fill the patch's time.
    """
    pixels_V3HW = rgb_VHWC.permute(0, 3, 1, 2).float()
    size = side * patch
    if pixels_V3HW.shape[-1] != size:
        pixels_V3HW = nn.functional.interpolate(
            pixels_V3HW, size=(size, size), mode="bicubic", antialias=True, align_corners=False
        )
        pixels_V3HW = pixels_V3HW.round().clamp(0, 255)
    mean, deviation = (
        on_device(torch.tensor(values)[:, None, None], rgb_VHWC.device)
        for values in (MEAN, DEVIATION)
    )
    pixels_V3HW = (pixels_V3HW / 255 - mean) / deviation
    blocks = side // merge
    # (V, colour, block row, row in block, pixel row, block column, column in block, pixel column)
    parts = pixels_V3HW.unflatten(3, (blocks, merge, patch)).unflatten(2, (blocks, merge, patch))
    parts = parts.permute(0, 2, 5, 3, 6, 1, 4, 7)  # V, block r c, in block r c, colour, pixel r c
    parts = parts[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, repeats, -1, -1)
    return parts.reshape(len(rgb_VHWC) * side * side, -1)
