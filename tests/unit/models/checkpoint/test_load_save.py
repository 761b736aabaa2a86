"""Checkpoints: round trip, the published layout, and what happens to folders that do not fit."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2Config

from fixtures.saved_students import as_pretrained, load, total
from fixtures.saved_students import saved as saved  # a fixture
from fixtures.students import CHANNELS, student, tokenizer
from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.tokenizer import save_tokenizer, tiny_tokenizer


def test_round_trip(saved: Path) -> None:
    loaded, text = load(saved)
    assert not loaded.training
    assert torch.equal(total(loaded), total(student()))
    sentence = "What is <ground> at <coord>?\n\n<|im_end|>"
    assert text(sentence)["input_ids"] == tokenizer()(sentence)["input_ids"]
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    assert not any(buffer.is_meta for buffer in loaded.buffers())


@pytest.mark.parametrize("name", ["llava-video", "llava-onevision"])
def test_both_llava_families_round_trip(tmp_path: Path, name: str) -> None:
    first, text = load_student(ModelSettings(name=name), teacher_channels=CHANNELS)
    save_student(first, text, tmp_path / "m")
    again, _ = load_student(
        ModelSettings(name=name, path=tmp_path / "m"), teacher_channels=CHANNELS
    )
    assert torch.equal(total(first), total(again))


def test_names_are_the_published_ones(saved: Path) -> None:
    names = set(load_file(saved / "model.safetensors"))
    assert {
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.2.mlp.down_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.image_newline",
        "model.mm_projector.0.weight",
        "model.mm_projector.2.bias",
        "model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias",
        "ground_head_obj.0.weight",
        "ground_head_query.3.bias",
        "ground_head_zero_target",
        "model.proj_3d.2.weight",
    } <= names
    assert len(names) == len(student().state_dict())
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["LlavaQwenForCausalLM"]
    assert config["threedrs"]["format_version"] == 1
    assert config["threedrs"]["teacher_channels"] == CHANNELS


def test_exported_tokenizer_loads_with_transformers(saved: Path) -> None:
    text = AutoTokenizer.from_pretrained(saved, config=Qwen2Config())
    assert text.decode(text("A chair.\nRed")["input_ids"]) == "A chair.\nRed"
    assert text.convert_tokens_to_ids("<coord>") == len(text) - 1


def test_sharded_checkpoints_load(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    names = sorted(tensors)
    parts = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, saved / file)
    (saved / "model.safetensors").unlink()
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = saved / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    loaded, _ = load(saved)
    assert torch.equal(total(loaded), total(student()))
    (saved / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        load(saved)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json is missing"):
        load(saved)


def test_gathered_state_is_saved_instead_of_the_students_own(tmp_path: Path) -> None:
    other = student(seed=5)
    save_student(student(), tokenizer(), tmp_path / "m", state=other.state_dict())
    loaded, _ = load(tmp_path / "m")
    assert torch.equal(total(loaded), total(other))


def test_tied_embeddings(tmp_path: Path) -> None:
    model = student(tied=True)
    save_student(model, tokenizer(), tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    loaded, _ = load(tmp_path / "m")
    embedding = loaded.language_model.get_input_embeddings().weight
    assert loaded.language_model.lm_head.weight is embedding
    assert torch.equal(total(loaded), total(model))


def test_pretrained_backbone_gets_new_tokens_and_seeded_heads(
    saved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, tower = as_pretrained(saved), student().family.vision_config
    monkeypatch.setattr(
        "threedrs.models.backbones.llava.read_vision_config", lambda config, path: tower
    )
    with caplog.at_level(logging.INFO):
        first, text = load(folder, teacher_channels=8)
    assert "start at random: ground_head" in caplog.text
    again, _ = load(folder, teacher_channels=8)
    other, _ = load_student(ModelSettings(path=folder, seed=1), teacher_channels=8)
    assert first.proj_3d[2].out_features == 8
    assert torch.equal(first.grounding_head.zero_target, again.grounding_head.zero_target)
    assert not torch.equal(first.grounding_head.zero_target, other.grounding_head.zero_target)
    original = student().state_dict()
    rows = len(text)
    assert text.convert_tokens_to_ids(["<ground>", "<coord>"]) == [rows - 2, rows - 1]
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        matrix = first.state_dict()[name]
        assert torch.equal(matrix[:-2], original[name][:-2])
        torch.testing.assert_close(matrix[-2:], matrix[:-2].mean(0).expand(2, -1))
    kept = "language_model.model.layers.1.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[kept], original[kept])


def test_unusable_tokenizers(saved: Path) -> None:
    save_tokenizer(tiny_tokenizer(), saved)
    with pytest.raises(CheckpointError, match="grounding head but its tokenizer lacks <ground>"):
        load(saved)
    (saved / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the tokenizer cannot be loaded"):
        load(saved)
    for name in ("tokenizer.json", "merges.txt"):
        (saved / name).unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load(saved)


def test_tokenizers_load_from_vocabulary_and_merges(saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    loaded, text = load(saved)
    sentence = "What is <ground> at <coord>?\n\n<|im_end|>"
    assert text(sentence)["input_ids"] == tokenizer()(sentence)["input_ids"]
    assert torch.equal(total(loaded), total(student()))


def test_teacher_channels(saved: Path) -> None:
    assert load(saved)[0].teacher_channels == CHANNELS
    assert load(saved, teacher_channels=0)[0].proj_3d is None
    with pytest.raises(CheckpointError, match="teacher of 16 channels"):
        load(saved, teacher_channels=8)


def test_unusable_folders(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/config.json: cannot be read"):
        load(tmp_path / "nowhere")
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model.safetensors: is damaged"):
        load(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threedrs": {"format_version": 9}}, "format_version is 9, this version reads 1"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"threedrs": None, "mm_vision_tower": "clip"}, "mm_vision_tower is 'clip'"),
        ({"threedrs": None, "mm_vision_tower": None}, "this version knows google/siglip-so400m"),
        ({"vocab_size": 10}, r"config\.json has 10 tokens, the tokenizer .*; copy the tokenizer's"),
    ],
)
def test_unusable_configurations(saved: Path, change: dict, message: str) -> None:
    config = json.loads((saved / "config.json").read_text()) | change
    kept = {name: value for name, value in config.items() if value is not None}
    (saved / "config.json").write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match=message):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_scaling\.type is 'linear'"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            r"config\.json: rope_scaling\.rope_type is 'yarn'.* this version knows default;",
        ),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}, "type is 'mrope'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, r"rope_parameters\.rope_type is 'llama3'"),
        ({"rope_scaling": "yarn"}, r"rope_scaling is 'yarn'"),
    ],
)
def test_scaled_positions_are_refused(saved: Path, change: dict, message: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        load(saved)
    default = {"rope_scaling": {"rope_type": "default"}}
    (saved / "config.json").write_text(json.dumps(config | default))
    assert torch.equal(total(load(saved)[0]), total(student()))
