"""What becomes of each field of a checkpoint's config.json, so that none changes numbers unseen.

A field is one of four things:

- honoured: `config_json` and the family read it (sizes, rotary embedding, tied embeddings);
- held to the one value that the student computes with (`Fields.equal`), or the load stops;
- without weight for the numbers (`Fields.silent`), such as how a checkpoint was trained;
- unknown: a warning names it, because it may mean numbers of which this version knows nothing.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import CheckpointError
from threedrs.models.backbones.config_json import READ_FIELDS

logger = logging.getLogger(__name__)

SECTIONS = ("text_config", "vision_config", "threedrs")


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of a config.json, or of a section of it, that nothing reads."""

    equal: Mapping[str, Any]  # the only value that the student computes with
    silent: str = ""  # names of fields that change no number

    def __or__(self, other: "Fields") -> "Fields":
        return Fields(equal={**self.equal, **other.equal}, silent=f"{self.silent} {other.silent}")

    def check(
        self, section: Mapping[str, Any], path: Path, read: Iterable[str], inside: str = ""
    ) -> None:
        """Check what is not ``read``, and log a warning that names unknown fields.

        Raises:
            CheckpointError: a field has a value under which the numbers would be others.
        """
        for name, expected in self.equal.items():
            # A field that is null says as much as one that is not there.
            value = section.get(name)
            if value is not None and value != expected:
                raise CheckpointError(
                    f"{path}: {inside}{name} is {value!r:.40}, this version computes with "
                    f"{expected!r} alone; choose a checkpoint that was made with it"
                )
        known = {*read, *self.equal, *self.silent.split()}
        if unknown := [inside + name for name in section if name not in known]:
            logger.warning(
                "%s: fields that are not read and may change the numbers: %s",
                path,
                ", ".join(unknown),
            )


# Fields of every model that transformers configures. The precision is that of the tensors.
USUAL = Fields(
    equal={"quantization_config": None},
    silent="_name_or_path architectures auto_map chunk_size_feed_forward dtype id2label "
    "is_encoder_decoder label2id model_type output_attentions output_hidden_states pad_token_id "
    "problem_type return_dict torch_dtype transformers_version use_cache",
)
# Without a sliding window its width and first layer change nothing. The ids of the two tokens are
# the tokenizer's.
QWEN2 = USUAL | Fields(
    equal={
        "hidden_act": "silu",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "partial_rotary_factor": 1.0,
        "use_sliding_window": False,
    },
    silent="coord_token_ids ground_token_ids layer_types max_window_layers sliding_window",
)
QWEN2_VL = Fields(
    equal={},
    silent="image_token_id video_token_id vision_token_id vision_start_token_id "
    "vision_end_token_id",
)
QWEN2_VL_TOWER = USUAL | Fields(
    equal={
        "hidden_act": "quick_gelu",
        "in_channels": 3,
        "in_chans": 3,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"},
    },
    # The tower has one patch size, whatever the second one says.
    silent="initializer_range spatial_patch_size",
)
# The backbone of the LLaVA families, in the published form and in transformers'. The silent ones
# say how it was trained, which images it takes, and which token stands for one.
LLAVA = Fields(
    equal={
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_resampler_type": None,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_pos_skipping": False,
        "vision_feature_select_strategy": "full",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
    },
    silent="add_faster_video add_time_instruction delay_load faster_token_stride "
    "force_sample freeze_mm_mlp_adapter freeze_mm_vision_resampler frames_upbound "
    "ignore_index image_aspect_ratio image_crop_resolution image_grid_pinpoints "
    "image_seq_length image_split_resolution image_token_index mm_projector_lr "
    "mm_resampler_location mm_tunable_parts mm_vision_tower_lr pos_skipping_range "
    "spatial_feature_dim tokenizer_model_max_length tokenizer_padding_side tune_mm_mlp_adapter "
    "tune_mm_vision_resampler unfreeze_mm_vision_tower use_mm_proj video_token_index "
    "vision_aspect_ratio vision_tower_pretrained",
)
SIGLIP = USUAL | Fields(
    equal={
        "model_type": "siglip_vision_model",
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "num_channels": 3,
        "image_size": 384,
        "patch_size": 14,
    },
    silent="attention_dropout initializer_range vision_use_head",
)
# Keys by which the published code builds the parts of a student. Without some it stops, without
# others (newlines, positions, the box of `<coord>`) it goes on without that part and says nothing.
PUBLISHED_KEYS: dict[str, Any] = {
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "grid",
    "mm_spatial_pool_mode": "bilinear",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "world_position_embedding_type": "avg-discrete-sin3d",
    "object_feature_type": "patch14-pe",
    "voxel_size": 0.1,
    "min_xyz_range": [-15, -15, -5],
    "max_xyz_range": [15, 15, 5],
    "ground_head_type": "infonce",
    "ground_head_temperature": 0.07,
}
# The same of a student that was trained, with the stride that gives 14 of 27 tokens.
STUDENT = PUBLISHED_KEYS | {"mm_spatial_pool_stride": 2}


def _qwen2(config: Mapping[str, Any], path: Path, model_type: str) -> Fields:
    """Return the fields of a Qwen2 whose sizes were read."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        Fields(equal={"model_type": model_type}).check(text, path, text, "text_config.")
    return QWEN2 | Fields(
        equal={"head_dim": config["hidden_size"] // config["num_attention_heads"]}
    )


def check_qwen2_vl_fields(config: Mapping[str, Any], path: Path, sizes: Iterable[str]) -> None:
    """Check the config.json of a Qwen2-VL whose sizes were read, with those of its tower."""
    fields = _qwen2(config, path, "qwen2_vl_text") | QWEN2_VL
    fields.check(config, path, (*READ_FIELDS, *SECTIONS))
    tower = QWEN2_VL_TOWER | Fields(equal={"hidden_size": config["hidden_size"]})
    tower.check(config["vision_config"], path, sizes, "vision_config.")


def check_llava_fields(config: Mapping[str, Any], path: Path, width: int) -> None:
    """Check the config.json of a LLaVA whose sizes were read, with a tower of ``width``."""
    fields = _qwen2(config, path, "qwen2") | LLAVA | Fields(equal={"mm_hidden_size": width})
    # A trained student has learned with the arrangement of tokens that its config.json names. A
    # pretrained backbone is trained with the student's, as in the published training.
    trained = "threedrs" in config or "ground_head_type" in config
    fields |= Fields(equal=STUDENT if trained else {}, silent=" ".join(STUDENT))
    if other := [n for n in STUDENT if not trained and config.get(n) not in (None, STUDENT[n])]:
        logger.info("%s: %s do not apply to a student of this backbone", path, ", ".join(other))
    read = (*READ_FIELDS, *SECTIONS, "mm_vision_tower", "vision_feature_layer")
    fields.check(config, path, read)
