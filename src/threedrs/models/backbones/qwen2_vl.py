"""The Qwen2-VL family: its own vision transformer, patch merger and multimodal rotary embedding.

A frame is resized to 28 G x 28 G pixels (bicubic, as in Qwen2-VL's own preprocessing). The merger
joins 2x2 patches, so a frame has G x G tokens, which the language model reads as they are. Features
A and B of an object come from the same grid, and rows get no newline token. The scene is one video.
The 384x384 frames give the native grid, 14; grid 7 costs a quarter of the visual tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threedrs.errors import CheckpointError
from threedrs.models.backbones.config_fields import check_qwen2_vl_fields
from threedrs.models.backbones.config_json import (
    SAVED_FIELDS,
    check_sizes,
    own_section,
    text_fields,
)
from threedrs.models.backbones.family import (
    VISION,
    VISION_MARKS,
    Family,
    HubCheckpoint,
    TensorNames,
    VisualGrid,
    new_text_fields,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, Qwen2VLTextConfig
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

VISION_FIELDS = ("depth", "embed_dim", "hidden_size", "mlp_ratio", "num_heads", "patch_size",
                 "spatial_merge_size", "temporal_patch_size")  # fmt: skip
# Frequencies of the rotary embedding that count time, height and width.
ROTARY_SECTIONS = {"tiny": [4, 4, 4], "mini": [4, 6, 6], "small": [8, 12, 12], "7b": [16, 24, 24]}


class Qwen2VLFamily(Family):
    """`qwen2-vl`."""

    checkpoints = {  # noqa: RUF012 (not changed)
        "qwen2-vl": HubCheckpoint(
            repository="Qwen/Qwen2-VL-7B-Instruct", gigabytes=17, licence="Apache-2.0"
        ),
    }
    model_type = "qwen2_vl"
    grids = (14, 7)
    vision_marks = VISION_MARKS
    tensor_names = TensorNames(
        pairs=(("visual.merger.", "projector."), ("visual.", "vision_tower.")),
        others=(
            ("model.visual.merger.", "projector."),
            ("model.visual.", "vision_tower."),
            ("model.language_model.", "language_model.model."),
        ),
    )

    @classmethod
    def visual_grid(cls, side: int) -> VisualGrid:
        """Return the grid of ``side`` x ``side`` tokens, the same for both features."""
        return VisualGrid(fine=side, coarse=side, newline=False)

    @classmethod
    def new(cls, size: str, tokens: int, grid: int) -> Qwen2VLFamily:
        """Return the family in ``model.size``."""
        from transformers import Qwen2VLTextConfig
        from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

        text, sections = new_text_fields(size, tokens), {"mrope_section": ROTARY_SECTIONS[size]}
        vision: dict[str, Any] = {}  # transformers' defaults are the published model's
        if size == "7b":
            text["rope_scaling"] = {"type": "mrope", **sections}
        else:
            text["rope_parameters"] |= sections
            text |= {"bos_token_id": None, "eos_token_id": None}
            width, inner, layers, heads = VISION[size]
            vision = {
                "depth": layers,
                "embed_dim": width,
                "hidden_size": text["hidden_size"],
                "mlp_ratio": inner // width,
                "num_heads": heads,
            }
        return cls(Qwen2VLTextConfig(**text), Qwen2VLVisionConfig(**vision), cls.visual_grid(grid))

    @classmethod
    def read(cls, config: Mapping[str, Any], path: Path, tokens: int, grid: int) -> Qwen2VLFamily:
        """Return the family that a config.json describes."""
        text, vision = read_text_config(config, path, tokens), read_vision_config(config, path)
        check_qwen2_vl_fields(config, path, VISION_FIELDS)
        return cls(text, vision, cls.visual_grid(grid))

    def config_json(self, teacher_channels: int, dtype: str) -> dict[str, Any]:
        """Return the config.json of a student."""
        text, vision = self.text_config, self.vision_config
        rope: Any = text.rope_parameters
        sizes = {name: getattr(vision, name) for name in VISION_FIELDS}
        return {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": self.model_type,
            **{name: getattr(text, name) for name in SAVED_FIELDS if hasattr(text, name)},
            "rope_theta": rope["rope_theta"],
            "rope_scaling": {"type": "mrope", "mrope_section": list(rope["mrope_section"])},
            "torch_dtype": dtype,
            "vision_config": {"model_type": self.model_type, **sizes},
            "threedrs": own_section(vision, VISION_FIELDS, teacher_channels, grid=self.grid.coarse),
        }

    @property
    def run_layers(self) -> int:
        """The layers of the vision tower that run: all."""
        return self.vision_config.depth

    def language_model(self) -> PreTrainedModel:
        """Build the decoder and the vocabulary head."""
        from threedrs.models.backbones.qwen2_modules import Qwen2VLLanguageModel

        return Qwen2VLLanguageModel(self.text_config)

    def vision_tower(self) -> PreTrainedModel:
        """Build the vision transformer; its merger is the projector."""
        from threedrs.models.backbones.qwen2_modules import build_vision_tower

        return build_vision_tower(self.vision_config)

    def projector(self) -> nn.Module:
        """Build the patch merger."""
        from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchMerger

        config = self.vision_config
        return PatchMerger(config.hidden_size, config.embed_dim, config.spatial_merge_size)

    def fine_tokens(self, tower: nn.Module, projector: nn.Module, rgb_VHWC: Tensor) -> Tensor:
        """Return the merged tokens (V,G,G,D)."""
        from threedrs.models.backbones.qwen2_modules import frame_features

        features = frame_features(tower, rgb_VHWC, self.vision_config, self.grid.fine)
        return projector(features).unflatten(0, (-1, self.grid.fine, self.grid.fine))

    def coarse_tokens(self, fine_VFFD: Tensor) -> Tensor:
        """Return the tokens as they are."""
        return fine_VFFD

    def position_ids(self, index: Tensor, before: int, frames: int) -> Tensor:
        """Return frame, row and column (3,B,T), the same number three times for text."""
        import torch

        side = self.grid.coarse
        visual = index - before
        # A video of V frames takes up max(V, G) positions, however many tokens it has, so text
        # behind it goes on from there.
        behind = index - frames * side**2 + (max(frames, side) if frames else 0)
        text = torch.where(visual < 0, index, behind)
        axes = (visual // side**2, visual // side % side, visual % side)
        within = (visual >= 0) & (visual < frames * side**2)
        return torch.stack([torch.where(within, before + axis, text) for axis in axes])

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
        joined, merged = config.spatial_merge_size**2 * width, self.grid.fine**2
        return tower, 2 * merged * joined**2, 2 * merged * joined * config.hidden_size


def read_text_config(config: Mapping[str, Any], path: Path, tokens: int) -> Qwen2VLTextConfig:
    """Return the configuration of the language model; see `text_fields`."""
    from transformers import Qwen2VLTextConfig

    fields = text_fields(config, path, tokens, kind="Qwen2-VL", rotary=("default", "mrope"))
    text = Qwen2VLTextConfig(**{"tie_word_embeddings": False, **fields})
    if "mrope_section" not in (text.rope_parameters or {}):
        raise CheckpointError(
            f"{path}: lacks rope_scaling.mrope_section; is it a Qwen2-VL checkpoint?"
        )
    return text


def read_vision_config(config: Mapping[str, Any], path: Path) -> Qwen2VLVisionConfig:
    """Return the configuration of the vision tower."""
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

    section = config.get("vision_config")
    if not isinstance(section, Mapping):
        raise CheckpointError(f"{path}: lacks vision_config; is it a Qwen2-VL checkpoint?")
    # Published folders leave out what is the default of the 7B model.
    given = [name for name in VISION_FIELDS if name in section]
    check_sizes(section, [name for name in given if name != "mlp_ratio"], path)
    return Qwen2VLVisionConfig(**{name: section[name] for name in given})
