"""The config.json of a Qwen2-VL checkpoint: the published layout plus a section of our own.

Published folders describe the language model field by field, the vision tower in `vision_config`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Qwen2VLTextConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.llava_config import (
    READ_FIELDS,
    SAVED_FIELDS,
    SHAPE_FIELDS,
    check_rotary,
    check_sizes,
    own_section,
)

MODEL_TYPE = "qwen2_vl"
VISION_FIELDS = (
    "depth",
    "embed_dim",
    "hidden_size",
    "mlp_ratio",
    "num_heads",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
)


def read_qwen2_vl_text(config: Mapping[str, Any], path: Path, tokens: int) -> Qwen2VLTextConfig:
    """Return the language model's configuration, its vocabulary at least ``tokens`` large.

    Raises:
        CheckpointError: a field that decides a tensor's shape is missing, or positions are scaled.
    """
    missing = [name for name in SHAPE_FIELDS if name not in config]
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; is it a Qwen2-VL checkpoint?")
    check_sizes(config, SHAPE_FIELDS, path)
    check_rotary(config, path, ("default", "mrope"))
    chosen: dict[str, Any] = {"tie_word_embeddings": False}
    chosen |= {name: config[name] for name in READ_FIELDS if name in config}
    chosen["vocab_size"] = max(config["vocab_size"], tokens)
    text = Qwen2VLTextConfig(**chosen)
    if "mrope_section" not in (text.rope_parameters or {}):
        raise CheckpointError(
            f"{path}: lacks rope_scaling.mrope_section; is it a Qwen2-VL checkpoint?"
        )
    return text


def read_qwen2_vl_vision(config: Mapping[str, Any], path: Path) -> Qwen2VLVisionConfig:
    """Return the vision tower's configuration.

    Raises:
        CheckpointError: there is none.
    """
    section = config.get("vision_config")
    if not isinstance(section, Mapping):
        raise CheckpointError(f"{path}: lacks vision_config; is it a Qwen2-VL checkpoint?")
    # Published folders leave out what is the default of the 7B model.
    given = [name for name in VISION_FIELDS if name in section]
    check_sizes(section, [name for name in given if name != "mlp_ratio"], path)
    return Qwen2VLVisionConfig(**{name: section[name] for name in given})


def qwen2_vl_config(
    text: Qwen2VLTextConfig,
    vision: Qwen2VLVisionConfig,
    teacher_channels: int,
    dtype: str,
    grid: int,
) -> dict[str, Any]:
    """Return the config.json of a student of this family; ``grid``: tokens a side of a frame."""
    rope: Any = text.rope_parameters
    fields = {name: getattr(text, name) for name in SAVED_FIELDS if hasattr(text, name)}
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": MODEL_TYPE,
        **fields,
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": list(rope["mrope_section"])},
        "torch_dtype": dtype,
        "vision_config": {
            "model_type": MODEL_TYPE,
            **{name: getattr(vision, name) for name in VISION_FIELDS},
        },
        "threedrs": own_section(vision, VISION_FIELDS, teacher_channels, grid=grid),
    }
