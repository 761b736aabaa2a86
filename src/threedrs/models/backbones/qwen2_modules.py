"""The modules of Qwen2-VL, with element-wise parts that run fused.

As transformers writes it, a layer of the vision tower asks the GPU three times for the lengths of
the frames, for which the host waits, and then takes one frame after another. Here every frame has
the same number of patches, which the host knows, and all frames are one product. Queries and keys
are turned in float32, as published, but in one pass over them.
"""

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2VLTextConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLPreTrainedModel,
    Qwen2VLTextModel,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids

from threedrs.models.compiled import run_fused
from threedrs.models.packing import on_device

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of red, green and blue in its training images
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


def build_vision_tower(config: Qwen2VLVisionConfig) -> Qwen2VisionTransformerPretrainedModel:
    """Build the vision transformer for frames of one size, without its merger, the projector."""
    tower = Qwen2VisionTransformerPretrainedModel(config)
    tower.set_submodule("merger", nn.Identity())
    assert config.hidden_act == "quick_gelu"
    for block in tower.blocks:
        block.attn.forward = partial(_attend, block.attn)  # type: ignore[union-attr]
        block.mlp.act.forward = partial(run_fused, _quick_gelu)  # type: ignore[union-attr]
    return tower


def _attend(
    attention: Any,
    hidden_PC: Tensor,
    *,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> Tensor:
    frames = len(cu_seqlens) - 1
    joined = attention.qkv(hidden_PC).unflatten(1, (3, attention.num_heads, -1))
    query, key, value = joined.unbind(1)
    query, key = run_fused(apply_rotary_pos_emb_vision, query, key, *position_embeddings)
    if value.requires_grad:
        # A view would keep the whole product, three times as much, until the backward pass.
        value = value.contiguous()
    # (patches, heads, channels) -> (frames, heads, patches of a frame, channels)
    query, key, value = (
        part.unflatten(0, (frames, -1)).transpose(1, 2) for part in (query, key, value)
    )
    seen = nn.functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    return attention.proj(seen.transpose(1, 2).reshape(hidden_PC.shape))


def _quick_gelu(hidden: Tensor) -> Tensor:
    return hidden * torch.sigmoid(1.702 * hidden)


def frame_features(tower: Any, rgb_VHWC: Tensor, config: Any, grid: int) -> Tensor:
    """Return the features of frames on ``grid`` x ``grid`` tokens, patches before the merger."""
    side = grid * config.spatial_merge_size
    patches = pixel_patches(
        rgb_VHWC,
        side=side,
        patch=config.patch_size,
        merge=config.spatial_merge_size,
        repeats=config.temporal_patch_size,
    )
    # All made on the host: from a GPU, transformers would ask for every frame's size and wait.
    frames = torch.tensor([[len(rgb_VHWC), side, side]])
    return tower(
        patches,
        grid_thw=frames,
        position_ids=_positions(len(rgb_VHWC), side, config.spatial_merge_size, rgb_VHWC.device),
        cu_seqlens=get_vision_cu_seqlens(frames),
    ).last_hidden_state


# Both are kept where they are used: a recorded pass must copy nothing from the host, whose memory
# would hold something else by the time of its replay.
@cache
def _positions(frames: int, side: int, merge: int, device: torch.device) -> Tensor:
    """Return row and column (V*side*side, 2) of each patch, in merged order."""
    sizes = torch.tensor([[frames, side, side]])
    return on_device(get_vision_position_ids(sizes, merge), device)


@cache
def _mean_and_deviation(device: torch.device) -> Tensor:
    return on_device(torch.tensor([MEAN, DEVIATION])[:, :, None, None], device)


def pixel_patches(rgb_VHWC: Tensor, *, side: int, patch: int, merge: int, repeats: int) -> Tensor:
    """Return the patches (V*side*side, 3*repeats*patch*patch) float32 of frames, in merged order.

    The patches that the merger joins stand together. Within a patch the order is colour, time, row,
    column, and ``repeats`` copies of the frame fill the patch's time.
    """
    pixels_V3HW = rgb_VHWC.permute(0, 3, 1, 2).float()
    size = side * patch
    if pixels_V3HW.shape[-1] != size:
        pixels_V3HW = nn.functional.interpolate(
            pixels_V3HW, size=(size, size), mode="bicubic", antialias=True, align_corners=False
        )
        pixels_V3HW = pixels_V3HW.round().clamp(0, 255)
    mean, deviation = _mean_and_deviation(rgb_VHWC.device)
    pixels_V3HW = (pixels_V3HW / 255 - mean) / deviation
    blocks = side // merge
    # (V, colour, block row, row in block, pixel row, block column, column in block, pixel column)
    parts = pixels_V3HW.unflatten(3, (blocks, merge, patch)).unflatten(2, (blocks, merge, patch))
    parts = parts.permute(0, 2, 5, 3, 6, 1, 4, 7)  # V, block r c, in block r c, colour, pixel r c
    # The tower reads pairs of frames. A frame stands alone in time, so each is given twice.
    parts = parts[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, repeats, -1, -1)
    return parts.reshape(len(rgb_VHWC) * side * side, -1)
