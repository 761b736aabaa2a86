"""The LLaVA families: SigLIP, a two-layer projector, Qwen2.

A frame of 384x384 pixels becomes 27x27 projected tokens, from the output of SigLIP's last layer but
one, resized to 14x14. Published folders describe the language model field by field and only name
the vision tower. Folders that transformers saves of LLaVA-OneVision (`llava_onevision`) hold the
same tensors under other names, and the sizes of the tower without its last layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threedrs.errors import CheckpointError
from threedrs.models.backbones.config_fields import PUBLISHED_KEYS, SIGLIP, check_llava_fields
from threedrs.models.backbones.config_json import (
    SAVED_FIELDS,
    check_sizes,
    own_section,
    text_fields,
)
from threedrs.models.backbones.family import (
    LLAVA_GRID,
    VISION,
    Family,
    HubCheckpoint,
    TensorNames,
    VisualGrid,
    new_text_fields,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, SiglipVisionConfig

PUBLISHED_TOWER = "google/siglip-so400m-patch14-384"
# Sizes of PUBLISHED_TOWER, which published folders only name.
SO400M: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
VISION_FIELDS = tuple(SO400M)
TOWER = "model.vision_tower.vision_tower.vision_model."
TRANSFORMERS_TYPE = "llava_onevision"
TOWERS = ("model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower.vision_model.",
          "vision_tower.")  # fmt: skip
ANY_TOWER = "(" + "|".join(map(re.escape, (TOWER, *TOWERS))) + ")"


class LlavaFamily(Family):
    """`llava-video` and `llava-onevision`: the same parts, other weights."""

    checkpoints = {  # noqa: RUF012 (not changed)
        "llava-video": HubCheckpoint(
            repository="lmms-lab/LLaVA-Video-7B-Qwen2", gigabytes=16, licence="Apache-2.0"
        ),
        "llava-onevision": HubCheckpoint(
            repository="lmms-lab/llava-onevision-qwen2-7b-ov", gigabytes=16, licence="Apache-2.0"
        ),
    }
    model_type = "llava_qwen"
    tensor_names = TensorNames(
        pairs=(
            (TOWER, "vision_tower."),
            ("model.mm_projector.", "projector."),
            ("model.image_newline", "newline_tokens.image_newline"),
        ),
        others=(
            *((prefix, "vision_tower.") for prefix in TOWERS),
            *(
                (f"{prefix}multi_modal_projector.linear_{number}.", f"projector.{layer}.")
                for prefix in ("", "model.")
                for number, layer in ((1, 0), (2, 2))
            ),
            ("image_newline", "newline_tokens.image_newline"),
            ("model.language_model.", "language_model.model."),
            ("language_model.", "language_model."),
        ),
        ignored=re.compile(rf".+\.embeddings\.position_ids|{ANY_TOWER}(post_layernorm|head)\..+"),
        vision_layer=re.compile(rf"{ANY_TOWER}encoder\.layers\.(?P<number>\d+)\..+"),
    )

    @classmethod
    def describes(cls, config: Mapping[str, Any]) -> bool:
        """Return whether a config.json is the published code's or LLaVA-OneVision's."""
        found = str(config.get("model_type"))
        if found in (cls.model_type, TRANSFORMERS_TYPE):
            return True
        # Published folders also call themselves llava and alike, as models of transformers do
        # whose parts are others.
        return found.startswith("llava") and "mm_projector_type" in config

    @classmethod
    def visual_grid(cls, side: int) -> VisualGrid:
        """Return the one grid that there is."""
        return LLAVA_GRID

    @classmethod
    def new(cls, size: str, tokens: int, grid: int) -> LlavaFamily:
        """Return the family in ``model.size``; all sizes have the real 27x27 patches."""
        from transformers import Qwen2Config, SiglipVisionConfig

        text, vision = Qwen2Config(**new_text_fields(size, tokens)), SO400M
        if size != "7b":
            width, inner, layers, heads = VISION[size]
            # One layer more than runs: the last one counts as SigLIP's own and is not built.
            sizes = (width, inner, layers + 1, heads, SO400M["image_size"], SO400M["patch_size"])
            vision = dict(zip(VISION_FIELDS, sizes, strict=True))
        return cls(text, SiglipVisionConfig(**vision), cls.visual_grid(grid))

    @classmethod
    def read(cls, config: Mapping[str, Any], path: Path, tokens: int, grid: int) -> LlavaFamily:
        """Return the family that a config.json describes."""
        from transformers import Qwen2Config

        text = Qwen2Config(**text_fields(config, path, tokens, kind="Qwen2", rotary=("default",)))
        vision = read_vision_config(config, path)
        check_llava_fields(config, path, vision.hidden_size)
        return cls(text, vision, cls.visual_grid(grid))

    def config_json(self, teacher_channels: int, dtype: str) -> dict[str, Any]:
        """Return the config.json of a student."""
        text, vision = self.text_config, self.vision_config
        return {
            "architectures": ["LlavaQwenForCausalLM"],
            "model_type": self.model_type,
            **{name: getattr(text, name) for name in SAVED_FIELDS},
            "rope_theta": text.rope_parameters["rope_theta"],
            "rope_scaling": None,
            "torch_dtype": dtype,
            "mm_vision_tower": PUBLISHED_TOWER,
            "mm_hidden_size": vision.hidden_size,
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "patch",
            **PUBLISHED_KEYS,
            "threedrs": own_section(vision, VISION_FIELDS, teacher_channels),
        }

    @property
    def run_layers(self) -> int:
        """The layers of the vision tower that run: all but the last."""
        return self.vision_config.num_hidden_layers - 1

    def language_model(self) -> PreTrainedModel:
        """Build Qwen2."""
        from transformers import Qwen2ForCausalLM

        return Qwen2ForCausalLM(self.text_config)

    def vision_tower(self) -> PreTrainedModel:
        """Build SigLIP without its last layer, final norm and head."""
        from torch import nn
        from transformers import SiglipVisionConfig, SiglipVisionModel

        config = self.vision_config.to_dict()
        config |= {"num_hidden_layers": self.run_layers, "vision_use_head": False}
        tower = SiglipVisionModel(SiglipVisionConfig(**config))
        tower.set_submodule("post_layernorm", nn.Identity())
        return tower

    def projector(self) -> nn.Module:
        """Build Linear, exact GELU, Linear."""
        from torch import nn

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
        """Return the 27x27 token grid resized to 14x14: bilinear, corners not aligned."""
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


def read_vision_config(config: Mapping[str, Any], path: Path) -> SiglipVisionConfig:
    """Return the configuration of the vision tower, all layers counted.

    Raises:
        CheckpointError: the checkpoint has a vision tower that is not known here.
    """
    from transformers import SiglipVisionConfig

    own = config.get("threedrs")
    if own is not None:
        section = own.get("vision_config")
        section = section if isinstance(section, dict) else {}
        check_sizes(section, VISION_FIELDS, path)
        return SiglipVisionConfig(**{name: section[name] for name in VISION_FIELDS})
    if config.get("model_type") == TRANSFORMERS_TYPE:
        return _transformers_tower(config, path)
    tower = config.get("mm_vision_tower")
    # Checkpoints trained from a local copy of the tower name that copy's folder.
    if Path(str(tower)).name != Path(PUBLISHED_TOWER).name:
        raise CheckpointError(
            f"{path}: mm_vision_tower is {tower!r}; this version knows {PUBLISHED_TOWER}"
        )
    return SiglipVisionConfig(**SO400M)


def _transformers_tower(config: Mapping[str, Any], path: Path) -> SiglipVisionConfig:
    """Return the tower of a folder that transformers saves, its last layer counted."""
    from transformers import SiglipVisionConfig

    section = config.get("vision_config")
    if not isinstance(section, Mapping):
        raise CheckpointError(f"{path}: lacks vision_config; is it a LLaVA-OneVision checkpoint?")
    check_sizes(section, VISION_FIELDS, path)
    SIGLIP.check(section, path, VISION_FIELDS, "vision_config.")
    taken = config.get("vision_feature_layer", -1)
    if taken not in (-1, -2):
        raise CheckpointError(
            f"{path}: vision_feature_layer is {taken!r:.40}, this version reads -1 and -2; choose "
            "a checkpoint with one of them"
        )
    # Features are those before SigLIP's own last layer. Converted folders leave that layer out and
    # take the last one that there is.
    sizes = {name: section[name] for name in VISION_FIELDS}
    sizes["num_hidden_layers"] += 2 + taken
    return SiglipVisionConfig(**sizes)


def pool(fine_VFFD: Tensor, side: int) -> Tensor:
    """Return the token grid resized to ``side`` x ``side``, bilinear, no antialiasing."""
    from torch.nn.functional import interpolate

    coarse_VDGG = interpolate(
        fine_VFFD.permute(0, 3, 1, 2),
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )
    return coarse_VDGG.permute(0, 2, 3, 1)
