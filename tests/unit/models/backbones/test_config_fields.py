"""Fields of a checkpoint's config.json: what is held to a value, what is named, what is silent."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedConfig, Qwen2Config
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLConfig

from fixtures.qwen2_vl import loaded
from fixtures.students import student, tokenizer
from threedrs.errors import CheckpointError
from threedrs.models.backbones.config_fields import QWEN2, QWEN2_VL, QWEN2_VL_TOWER, SECTIONS, USUAL
from threedrs.models.backbones.config_json import READ_FIELDS
from threedrs.models.backbones.qwen2_vl import VISION_FIELDS
from threedrs.models.checkpoint.folder import read_config
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava") / "model"
    save_student(student(), tokenizer(), folder)
    return folder


@pytest.fixture(scope="module")
def qwen2_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen") / "model"
    save_student(*loaded(), folder)
    return folder


def load_with(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Load ``folder`` with another config.json."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).hardlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (copy / "config.json").unlink()
    (copy / "config.json").write_text(json.dumps(config | changes))
    load_student(ModelSettings(path=copy))


REFUSED_OF_QWEN2 = {
    "hidden_act": "gelu",
    "attention_bias": False,
    "attention_dropout": 0.1,
    "partial_rotary_factor": 0.5,
    "use_sliding_window": True,
    "head_dim": 64,
    "quantization_config": {"bits": 4},
}
REFUSED_OF_LLAVA = {
    "mm_projector_type": "linear",
    "mm_hidden_size": 1024,
    "mm_resampler_type": "spatial_pool",
    "mm_vision_select_layer": -1,
    "mm_vision_select_feature": "cls_patch",
    "mm_patch_merge_type": "flat",
    "mm_newline_position": "one_token",
    "mm_spatial_pool_mode": "average",
    "mm_spatial_pool_stride": 4,
    "mm_use_im_start_end": True,
    "voxel_size": 0.2,
    "max_xyz_range": [10, 10, 5],
    "world_position_embedding_type": "mlp",
    "object_feature_type": "patch14",
    "ground_head_type": "mlp",
    "ground_head_temperature": 0.1,
}


@pytest.mark.parametrize("name", [*REFUSED_OF_QWEN2, *REFUSED_OF_LLAVA])
def test_llava(llava: Path, tmp_path: Path, name: str) -> None:
    value = (REFUSED_OF_QWEN2 | REFUSED_OF_LLAVA)[name]
    with pytest.raises(CheckpointError, match=rf"config\.json: {name} is .*computes with") as told:
        load_with(llava, tmp_path, {name: value})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", REFUSED_OF_QWEN2)
def test_qwen2_vl(qwen2_vl: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: {name} is .*computes with"):
        load_with(qwen2_vl, tmp_path, {name: REFUSED_OF_QWEN2[name]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, r"vision_config\.hidden_act is 'gelu'"),
        ({"in_channels": 1}, r"vision_config\.in_channels is 1"),
        ({"hidden_size": 64}, r"vision_config\.hidden_size is 64"),
        (
            {"rope_parameters": {"rope_type": "axial", "rope_theta": 100.0}},
            r"vision_config\.rope_parameters is",
        ),
    ],
)
def test_the_vision_tower_of_qwen2_vl(
    qwen2_vl: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    section = json.loads((qwen2_vl / "config.json").read_text())["vision_config"]
    with pytest.raises(CheckpointError, match=message):
        load_with(qwen2_vl, tmp_path, {"vision_config": section | changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types holds sliding"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            r"rope_parameters\.partial_rotary_factor is 0\.5",
        ),
    ],
)
def test_other_positions_and_layers(
    llava: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_with(llava, tmp_path, changes)


def test_unknown_fields_are_named_once(
    llava: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"logit_scale": 2.0, "mm_new_trick": True, "mm_tunable_parts": "all", "dtype": None}
    load_with(llava, tmp_path, changes)
    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].endswith("and may change the numbers: logit_scale, mm_new_trick")


def test_what_we_write_is_known(
    llava: Path, qwen2_vl: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_with(llava, tmp_path, {})
    load_student(ModelSettings(path=qwen2_vl))
    assert not [one.message for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_pretrained_backbone_is_trained_with_the_students_arrangement(
    llava: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from threedrs.models.backbones.config_fields import check_llava_fields

    config = read_config(llava / "config.json")
    for name in ("threedrs", "ground_head_type"):
        del config[name]
    config["mm_newline_position"] = "one_token"
    with caplog.at_level(logging.INFO):
        check_llava_fields(config, tmp_path, config["mm_hidden_size"])
    assert "mm_newline_position do not apply to a student of this backbone" in caplog.text
    config["mm_projector_type"] = "linear"
    with pytest.raises(CheckpointError, match="mm_projector_type is 'linear'"):
        check_llava_fields(config, tmp_path, config["mm_hidden_size"])


def test_every_field_that_transformers_writes_is_accounted_for() -> None:
    text = {*READ_FIELDS, *SECTIONS, *QWEN2.equal, *QWEN2.silent.split()}
    assert {*PreTrainedConfig().to_dict()} <= {*USUAL.equal, *USUAL.silent.split()}
    assert {*Qwen2Config().to_dict()} <= text
    whole = Qwen2VLConfig().to_dict()
    assert {*whole, *whole["text_config"]} <= text | {*QWEN2_VL.silent.split()}
    tower = {*VISION_FIELDS, *QWEN2_VL_TOWER.equal, *QWEN2_VL_TOWER.silent.split()}
    assert {*whole["vision_config"]} <= tower
