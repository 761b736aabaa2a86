"""The config.json of a LLaVA checkpoint: the published layout plus a section of our own.

Published folders describe the language model field by field and name the vision tower; ours also
carry ``threedrs``: format version, the teacher's channels, and the vision tower's sizes.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import Qwen2Config, SiglipVisionConfig

import threedrs
from threedrs.errors import CheckpointError

FORMAT_VERSION = 1
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
# Fields of the language model that decide a tensor's shape.
SHAPE_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
SAVED_FIELDS = (
    *SHAPE_FIELDS,
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "tie_word_embeddings",
    "attention_dropout",
    "use_sliding_window",
    "bos_token_id",
    "eos_token_id",
)
# Far above any model: a larger number would only fill the memory with layers, before a tensor of
# the checkpoint is compared with it.
MOST_LAYERS = 1024
MOST_SIDE = 8192  # pixels
MOST = 2**21
READ_FIELDS = (*SAVED_FIELDS, "rope_theta", "rope_scaling", "rope_parameters")


def read_text_config(config: Mapping[str, Any], path: Path, tokens: int) -> Qwen2Config:
    """Return the language model's configuration, its vocabulary at least ``tokens`` large.

    Raises:
        CheckpointError: a field that decides a tensor's shape is missing, or positions are scaled.
    """
    missing = [name for name in SHAPE_FIELDS if name not in config]
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; is it a Qwen2 checkpoint?")
    check_sizes(config, SHAPE_FIELDS, path)
    check_rotary(config, path, ("default",))
    chosen = {name: config[name] for name in READ_FIELDS if name in config}
    chosen["vocab_size"] = max(config["vocab_size"], tokens)
    return Qwen2Config(**chosen)


def check_sizes(section: Mapping[str, Any], names: Iterable[str], path: Path) -> None:
    """Check the sizes of a model that a config.json gives.

    Raises:
        CheckpointError: one is no whole number, or absurd.
    """
    for name in names:
        most = MOST_LAYERS if name in ("num_hidden_layers", "depth") else MOST
        most = MOST_SIDE if name in ("image_size", "patch_size") else most
        value = section.get(name)
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(
                f"{path}: {name} is {value!r:.40}, expected a whole number from 1 to {most}; "
                "fetch the checkpoint again"
            )


def check_rotary(config: Mapping[str, Any], path: Path, known: Sequence[str]) -> None:
    """Check that the rotary embedding is of a type that is restored after a cast and saved again.

    With another one a student would train on other positions than its export is read with.

    Raises:
        CheckpointError: it is of none of the ``known`` types.
    """
    for section in ("rope_scaling", "rope_parameters"):
        rope = config.get(section)
        if isinstance(rope, Mapping):
            types = {f"{section}.{key}": rope[key] for key in ("type", "rope_type") if key in rope}
        else:
            types = {} if rope is None else {section: rope}
        for key, value in types.items():
            if value not in known:
                raise CheckpointError(
                    f"{path}: {key} is {value!r:.40}, this version knows {' or '.join(known)}; "
                    "choose a checkpoint whose positions are not scaled"
                )


def read_vision_config(config: Mapping[str, Any], path: Path) -> SiglipVisionConfig:
    """Return the vision tower's configuration, all layers counted.

    Raises:
        CheckpointError: the checkpoint names a vision tower whose sizes are not known here.
    """
    own = config.get("threedrs")
    if own is not None:
        section = own.get("vision_config")
        section = section if isinstance(section, dict) else {}
        check_sizes(section, VISION_FIELDS, path)
        return SiglipVisionConfig(**{name: section[name] for name in VISION_FIELDS})
    tower = config.get("mm_vision_tower")
    # Checkpoints trained from a local copy of the tower name that copy's folder.
    if Path(str(tower)).name != Path(PUBLISHED_TOWER).name:
        raise CheckpointError(
            f"{path}: mm_vision_tower is {tower!r}; this version knows {PUBLISHED_TOWER}"
        )
    return SiglipVisionConfig(**SO400M)


def read_teacher_channels(config: Mapping[str, Any], path: Path) -> int | None:
    """Return the teacher's channels of a checkpoint of ours; None for one that is not ours.

    Raises:
        CheckpointError: the section is of another format version.
    """
    own = config.get("threedrs")
    if own is None:
        return None
    version = own.get("format_version") if isinstance(own, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: threedrs.format_version is {version}, this version reads {FORMAT_VERSION}"
        )
    channels = own.get("teacher_channels")
    if type(channels) is not int or not 0 <= channels <= MOST:
        raise CheckpointError(f"{path}: threedrs.teacher_channels is {channels!r:.40}, no number")
    return channels


def own_section(
    vision: Any, fields: tuple[str, ...], teacher_channels: int, **more: Any
) -> dict[str, Any]:
    """Return the section ``threedrs`` of a student's config.json."""
    return {
        "format_version": FORMAT_VERSION,
        "version": threedrs.__version__,
        "teacher_channels": teacher_channels,
        "vision_config": {name: getattr(vision, name) for name in fields},
        **more,
    }


def checkpoint_config(
    text: Qwen2Config, vision: SiglipVisionConfig, teacher_channels: int, dtype: str
) -> dict[str, Any]:
    """Return the config.json of a student of the LLaVA families."""
    rope = text.rope_parameters
    assert rope is not None
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        **{name: getattr(text, name) for name in SAVED_FIELDS},
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None,
        "torch_dtype": dtype,
        "mm_vision_tower": PUBLISHED_TOWER,
        "mm_hidden_size": vision.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_spatial_pool_mode": "bilinear",
        "mm_newline_position": "grid",
        "threedrs": own_section(vision, VISION_FIELDS, teacher_channels),
    }
