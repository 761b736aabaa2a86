"""Which backbone to build: from a name and a size, or from a checkpoint's config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Qwen2Config, Qwen2VLTextConfig, SiglipVisionConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

from threedrs.errors import CheckpointError
from threedrs.models.backbones.base import Family
from threedrs.models.backbones.llava import LlavaFamily
from threedrs.models.backbones.qwen2_vl import Qwen2VLFamily
from threedrs.models.backbones.qwen2_vl_config import (
    MODEL_TYPE,
    qwen2_vl_config,
    read_qwen2_vl_text,
    read_qwen2_vl_vision,
)
from threedrs.models.backbones.tiny import (
    scratch_qwen2_vl_text_config,
    scratch_qwen2_vl_vision_config,
    scratch_text_config,
    scratch_vision_config,
)
from threedrs.models.checkpoint.llava_config import (
    SO400M,
    checkpoint_config,
    read_text_config,
    read_vision_config,
)
from threedrs.models.grid import LLAVA_GRID, NATIVE_GRID
from threedrs.models.settings import LAYERS, ModelSettings

# The 7B language model of all three backbones.
TEXT_7B: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": LAYERS["7b"],
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
}


def new_family(settings: ModelSettings, tokens: int) -> Family:
    """Return the family of ``model.name`` in ``model.size``, for a vocabulary of ``tokens``."""
    size, scratch = settings.size, settings.from_scratch
    if settings.name == "qwen2-vl":
        rope = {"type": "mrope", "mrope_section": [16, 24, 24]}
        full: dict[str, Any] = {**TEXT_7B, "rope_scaling": rope, "tie_word_embeddings": False}
        return Qwen2VLFamily.of_grid(
            scratch_qwen2_vl_text_config(size, tokens) if scratch else Qwen2VLTextConfig(**full),
            scratch_qwen2_vl_vision_config(size) if scratch else Qwen2VLVisionConfig(),
            settings.grid or NATIVE_GRID,
        )
    return LlavaFamily(
        scratch_text_config(size, tokens)
        if scratch
        else Qwen2Config(**TEXT_7B, tie_word_embeddings=False),
        scratch_vision_config(size) if scratch else SiglipVisionConfig(**SO400M),
        LLAVA_GRID,
    )


def read_family(
    config: Mapping[str, Any], path: Path, tokens: int, settings: ModelSettings
) -> Family:
    """Return the family that a checkpoint's config.json describes.

    Raises:
        CheckpointError: a field is missing, or the settings name another family or grid.
    """
    qwen2_vl = config.get("model_type") == MODEL_TYPE
    if settings.name is not None and (settings.name == "qwen2-vl") != qwen2_vl:
        found = "qwen2-vl" if qwen2_vl else "llava-video or llava-onevision"
        raise CheckpointError(f"{path}: is a checkpoint of {found}, model.name is {settings.name}")
    if not qwen2_vl:
        return LlavaFamily(
            read_text_config(config, path, tokens), read_vision_config(config, path), LLAVA_GRID
        )
    trained = config.get("threedrs", {}).get("grid")
    if trained and settings.grid not in (None, trained):
        raise CheckpointError(
            f"{path}: was trained with model.grid {trained}, this run has {settings.grid}"
        )
    return Qwen2VLFamily.of_grid(
        read_qwen2_vl_text(config, path, tokens),
        read_qwen2_vl_vision(config, path),
        settings.grid or trained or NATIVE_GRID,
    )


def family_config(family: Family, teacher_channels: int, dtype: str) -> dict[str, Any]:
    """Return the config.json of a student of ``family``."""
    text, vision = family.text_config, family.vision_config
    if isinstance(family, Qwen2VLFamily):
        return qwen2_vl_config(text, vision, teacher_channels, dtype, family.grid.coarse)
    return checkpoint_config(text, vision, teacher_channels, dtype)
