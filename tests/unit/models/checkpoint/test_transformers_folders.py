"""Checkpoints as the installed transformers saves them: other names, a nested config.json."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SiglipVisionConfig,
)

from fixtures.qwen2_vl import CHANNELS, SUPERVISION, loaded, pack
from fixtures.students import TEXT, scene
from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.student import Student
from threedrs.models.tokenizer import save_tokenizer, tiny_tokenizer

WIDTH, TOKENS = 32, 1200


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("original_names", [True, False])
def test_qwen2_vl(tmp_path: Path, original_names: bool) -> None:
    student, tokenizer = loaded()
    save_student(student, tokenizer, tmp_path / "ours")
    theirs = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "ours")
    del theirs.config.threedrs  # it says that the folder has our heads
    theirs.save_pretrained(tmp_path / "theirs", save_original_format=original_names)
    save_tokenizer(tokenizer, tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs/config.json").read_text())
    assert "hidden_size" not in config
    assert config["text_config"]["hidden_size"] == 96

    found, _ = load_student(ModelSettings(path=tmp_path / "theirs"), teacher_channels=CHANNELS)
    expected = student.state_dict()
    heads = ("grounding_head.", "proj_3d.")
    for name, tensor in found.state_dict().items():
        assert name.startswith(heads) or torch.equal(tensor, expected[name]), name
    with torch.no_grad():
        losses = [model(pack((TEXT,)), SUPERVISION).text_K for model in (found, student)]
    assert torch.equal(*losses)


def llava_onevision(layers: int = 2, **changes: Any) -> LlavaOnevisionForConditionalGeneration:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": 4}
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(
            **sizes, vocab_size=TOKENS, num_hidden_layers=2, num_key_value_heads=2
        ),
        vision_config=SiglipVisionConfig(
            **sizes, num_hidden_layers=layers, image_size=384, patch_size=14, vision_use_head=False
        ),
        **changes,
    )
    torch.manual_seed(0)
    return LlavaOnevisionForConditionalGeneration(config).eval()


def save(model: PreTrainedModel, folder: Path, *, original_names: bool = True) -> Path:
    model.save_pretrained(folder, save_original_format=original_names)
    save_tokenizer(tiny_tokenizer(), folder)
    return folder


@pytest.mark.parametrize("original_names", [True, False])
@pytest.mark.parametrize("layer", [-1, -2])
def test_llava_onevision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: int, original_names: bool
) -> None:
    theirs = llava_onevision(vision_feature_layer=layer)
    folder = save(theirs, tmp_path / "m", original_names=original_names)
    student, _ = load_student(ModelSettings(name="llava-onevision", path=folder))
    assert student.family.run_layers == 3 + layer

    # transformers knows no position embedding of world points.
    monkeypatch.setattr(
        Student, "position_embedding", lambda self, points: torch.zeros(*points.shape[:-1], WIDTH)
    )
    frames = scene()
    pixels = (frames.rgb_VHWC.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    ids = torch.arange(5, 25)
    with torch.no_grad():
        features = theirs.model.get_video_features(pixels[None]).pooler_output
        newline = theirs.model.image_newline
        found = student.visual_tokens(frames).sequence_TD.unflatten(0, (-1, 14, 15))
        logits = theirs.lm_head(theirs.model.language_model(ids[None]).last_hidden_state)[0]
        tokens = student.embed(ids)
        hidden, _ = student.run_language_model(tokens, torch.arange(20)[None], None)
        own_logits = student.language_model.lm_head(hidden)
    expected = features.reshape(-1, 14, 14, WIDTH)
    torch.testing.assert_close(found[:, :, :14], expected)
    assert torch.equal(found[:, :, 14], newline.expand(len(found), 14, -1))
    torch.testing.assert_close(
        own_logits[:, : len(tiny_tokenizer())], logits[:, : len(tiny_tokenizer())]
    )


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("", {"vision_feature_layer": -5}, "vision_feature_layer is -5, this version reads -1"),
        ("", {"vision_feature_select_strategy": "default"}, "select_strategy is 'default'"),
        ("", {"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
        ("text_config", {"model_type": "llama"}, r"text_config\.model_type is 'llama'"),
        ("text_config", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("vision_config", {"model_type": "clip_vision_model"}, r"vision_config\.model_type is 'cl"),
        ("vision_config", {"image_size": 336}, r"vision_config\.image_size is 336"),
    ],
)
def test_other_numbers_of_llava_onevision_are_refused(
    tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    folder = save(llava_onevision(), tmp_path / "m")
    if section:
        whole = json.loads((folder / "config.json").read_text())[section]
        changes = {section: whole | changes}
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_student(ModelSettings(path=folder))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "llava_next_video", "internvl", None])
def test_a_checkpoint_of_another_family_is_called_by_its_name(
    tmp_path: Path, name: str | None
) -> None:
    folder = save(llava_onevision(), tmp_path / "m")
    edit(folder, model_type=name)
    with pytest.raises(CheckpointError, match=f"has model_type {name!r}, which no backbone here"):
        load_student(ModelSettings(path=folder))
    edit(folder, model_type="qwen2_vl")
    with pytest.raises(CheckpointError, match=r"of qwen2-vl, model\.name is llava-video"):
        load_student(ModelSettings(name="llava-video", path=folder))


def test_nested_configurations_are_qwen2_vls_own() -> None:
    """The installed transformers writes what the tests above read."""
    written = Qwen2VLConfig().to_dict()
    assert written["text_config"]["model_type"] == "qwen2_vl_text"
    assert written["vision_config"]["rope_parameters"]["rope_type"] == "axial"
