"""The LLaVA families: SigLIP, a two-layer projector, Qwen2.

A frame of 384x384 pixels becomes 27x27 projected tokens, from the output of SigLIP's last layer but
one, resized to 14x14.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from threedrs.models.backbones.base import Family
from threedrs.models.checkpoint.tensor_names import LLAVA_LAYOUT


class LlavaFamily(Family):
    """`llava-video` and `llava-onevision`: the same parts, other weights."""

    name = "llava-video"
    layout = LLAVA_LAYOUT

    @property
    def run_layers(self) -> int:
        """The layers of the vision tower that run: all but the last."""
        return self.vision_config.num_hidden_layers - 1

    def language_model(self) -> PreTrainedModel:
        """Build Qwen2."""
        return Qwen2ForCausalLM(self.text_config)

    def vision_tower(self) -> PreTrainedModel:
        """Build SigLIP without its last layer, final norm and head."""
        config = self.vision_config.to_dict()
        tower = SiglipVisionModel(
            SiglipVisionConfig(
                **{**config, "num_hidden_layers": self.run_layers, "vision_use_head": False}
            )
        )
        tower.set_submodule("post_layernorm", nn.Identity())
        return tower

    def projector(self) -> nn.Module:
        """Build Linear, exact GELU, Linear."""
        channels = self.text_config.hidden_size
        return nn.Sequential(
            nn.Linear(self.vision_config.hidden_size, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )

    def fine_tokens(self, tower: Any, projector: nn.Module, rgb_VHWC: Tensor) -> Tensor:
        """Return the projected tokens (V,27,27,D)."""
        dtype = tower.embeddings.patch_embedding.weight.dtype
        pixels_V3HW = (rgb_VHWC.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        features = tower(pixels_V3HW.to(dtype)).last_hidden_state
        return projector(features).unflatten(1, (self.grid.fine, self.grid.fine))

    def coarse_tokens(self, fine_VFFD: Tensor) -> Tensor:
        """Return the 27x27 token grid resized to 14x14, bilinear, corners not aligned."""
        return pool(fine_VFFD, self.grid.coarse)

    def vision_sizes(self) -> tuple[int, int, int]:
        """Return the tower's patches a frame, width, and MLP width."""
        config = self.vision_config
        return self.grid.fine**2, config.hidden_size, config.intermediate_size

    def vision_operations(self) -> tuple[float, float, float]:
        """Return the forward operations of one frame: tower, projector's first and last layer."""
        patches, width, inner = self.vision_sizes()
        channels = self.text_config.hidden_size
        layer = 2 * (4 * width**2 + 2 * width * inner) + 4 * width * patches
        embedding = 2 * 3 * self.vision_config.patch_size**2 * width
        tower = patches * (self.run_layers * layer + embedding)
        return tower, 2 * patches * width * channels, 2 * patches * channels**2


def pool(fine_VFFD: Tensor, side: int) -> Tensor:
    """Return the token grid resized to ``side`` x ``side``, bilinear, no antialiasing."""
    fine_VDFF = fine_VFFD.permute(0, 3, 1, 2)
    coarse = nn.functional.interpolate(
        fine_VDFF, size=(side, side), mode="bilinear", align_corners=False, antialias=False
    )
    return coarse.permute(0, 2, 3, 1)
