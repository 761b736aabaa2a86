"""Checkpoints: round trip, the published layout, and what happens to folders that do not fit."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2Config

from fixtures.students import CHANNELS, MIXED, pack, student, tokenizer
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.checkpoint.matching import vocabulary_rows
from threedrs.models.model_settings import ModelSettings
from threedrs.models.tokenizer import save_tokenizer, tiny_tokenizer

HEAD_PREFIXES = ("ground_head_", "model.proj_3d.")


def _total(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(pack(MIXED), SupervisionSettings()).total(1.0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_student(student(), tokenizer(), folder)
    return folder


def _edit(folder: Path, change: object) -> None:
    """Rewrite the folder's tensors after ``change`` has edited the dictionary of them."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)  # type: ignore[operator]
    save_file(tensors, folder / "model.safetensors")


def _as_pretrained(folder: Path) -> Path:
    """Turn a saved student into a backbone: no heads, no section of ours, no added tokens."""

    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(HEAD_PREFIXES)]:
            del tensors[name]
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name][:-2].clone()

    _edit(folder, strip)
    config = json.loads((folder / "config.json").read_text())
    del config["threedrs"]
    config["vocab_size"] -= 2
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(tiny_tokenizer(), folder)
    return folder


def _load(folder: Path, **options: int | None) -> tuple:
    return load_student(ModelSettings(path=folder), **options)  # type: ignore[arg-type]


def test_round_trip(saved: Path) -> None:
    loaded, text = _load(saved)
    assert not loaded.training
    assert torch.equal(_total(loaded), _total(student()))
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
    assert torch.equal(_total(first), _total(again))


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
    loaded, _ = _load(saved)
    assert torch.equal(_total(loaded), _total(student()))
    (saved / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        _load(saved)


def test_gathered_state_is_saved_instead_of_the_students_own(tmp_path: Path) -> None:
    other = student(seed=5)
    save_student(student(), tokenizer(), tmp_path / "m", state=other.state_dict())
    loaded, _ = _load(tmp_path / "m")
    assert torch.equal(_total(loaded), _total(other))


def test_tied_embeddings(tmp_path: Path) -> None:
    model = student(tied=True)
    save_student(model, tokenizer(), tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    loaded, _ = _load(tmp_path / "m")
    embedding = loaded.language_model.get_input_embeddings().weight
    assert loaded.language_model.lm_head.weight is embedding
    assert torch.equal(_total(loaded), _total(model))


def test_pretrained_backbone_gets_new_tokens_and_seeded_heads(
    saved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _as_pretrained(saved)
    monkeypatch.setattr(
        "threedrs.models.backbones.llava.read_vision_config",
        lambda config, path: student().family.vision_config,
    )
    with caplog.at_level(logging.INFO):
        first, text = _load(folder, teacher_channels=8)
    assert "start at random: ground_head" in caplog.text
    again, _ = _load(folder, teacher_channels=8)
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


def test_vocabulary_rows() -> None:
    matrix = torch.tensor([[1.0], [3.0], [9.0], [9.0], [9.0]])
    assert vocabulary_rows(matrix, 4, 2).flatten().tolist() == [1, 3, 2, 2]
    assert vocabulary_rows(matrix[:2], 4, 2).flatten().tolist() == [1, 3, 2, 2]
    assert vocabulary_rows(matrix, 3, None).flatten().tolist() == [1, 3, 9]


def test_known_tensors_without_use_are_ignored(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vision = "model.vision_tower.vision_tower.vision_model."
    extra = [
        "model.corres_linear.weight",
        "model.linear_dc.0.bias",
        "model.geometric_linear.weight",
        f"{vision}post_layernorm.weight",
        f"{vision}head.probe",
        f"{vision}encoder.layers.1.mlp.fc1.weight",  # the last layer, which does not run
    ]
    _edit(saved, lambda tensors: tensors.update({name: torch.zeros(1) for name in extra}))
    with caplog.at_level(logging.INFO):
        loaded, _ = _load(saved)
    assert "6 tensors are not used" in caplog.text
    assert torch.equal(_total(loaded), _total(student()))


@pytest.mark.parametrize(
    "name",
    [
        "model.surprise.weight",
        "model.layers.3.mlp.up_proj.weight",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight",
    ],
)
def test_unknown_tensors_stop_the_load(saved: Path, name: str) -> None:
    _edit(saved, lambda tensors: tensors.update({name: torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=f"1 unknown: {name}"):
        _load(saved)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "ground_head_zero_target", "model.proj_3d.0.bias"]
)
def test_missing_tensors_stop_the_load(saved: Path, name: str) -> None:
    _edit(saved, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"1 missing: {name}"):
        _load(saved)


def test_a_trained_checkpoint_must_hold_its_heads(saved: Path) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("ground_head_")]:
            del tensors[name]

    _edit(saved, strip)
    with pytest.raises(CheckpointError, match="13 missing: ground_head_zero_target"):
        _load(saved)


def test_a_checkpoint_trained_without_a_teacher_gets_a_new_projection_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    baseline = student(teacher_channels=0)
    save_student(baseline, tokenizer(), tmp_path / "m")
    assert _load(tmp_path / "m")[0].proj_3d is None
    with caplog.at_level(logging.INFO):
        first, _ = _load(tmp_path / "m", teacher_channels=8)
    assert "4 tensors start at random: model.proj_3d.0.weight" in caplog.text
    again, _ = _load(tmp_path / "m", teacher_channels=8)
    other, _ = load_student(ModelSettings(path=tmp_path / "m", seed=1), teacher_channels=8)
    assert first.proj_3d[2].out_features == 8
    assert torch.equal(first.proj_3d[0].weight, again.proj_3d[0].weight)
    assert not torch.equal(first.proj_3d[0].weight, other.proj_3d[0].weight)
    kept = baseline.state_dict()
    assert all(torch.equal(first.state_dict()[name], kept[name]) for name in kept)
    _edit(tmp_path / "m", lambda tensors: tensors.pop("ground_head_zero_target"))
    with pytest.raises(CheckpointError, match="1 missing: ground_head_zero_target"):
        _load(tmp_path / "m", teacher_channels=8)


def test_a_checkpoint_trained_with_a_teacher_must_hold_its_projection_head(saved: Path) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("model.proj_3d.")]:
            del tensors[name]

    _edit(saved, strip)
    with pytest.raises(CheckpointError, match=r"4 missing: model\.proj_3d\.0\.weight"):
        _load(saved, teacher_channels=CHANNELS)


def test_tensors_of_another_shape_stop_the_load(saved: Path) -> None:
    _edit(saved, lambda tensors: tensors.update({"model.norm.weight": torch.ones(5)}))
    with pytest.raises(CheckpointError, match=r"of another shape: model.norm.weight \(5,\)"):
        _load(saved)


def test_a_tokenizer_with_more_tokens_than_rows_has_a_remedy(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    rows = config["vocab_size"] - 1
    names = ("model.embed_tokens.weight", "lm_head.weight")
    _edit(saved, lambda tensors: tensors.update({n: tensors[n][:rows].clone() for n in names}))
    message = rf"2 of another shape: .*\({rows}, 32\).*; copy the tokenizer's files .* or give"
    with pytest.raises(CheckpointError, match=message):
        _load(saved)


def test_unusable_tokenizers(saved: Path) -> None:
    save_tokenizer(tiny_tokenizer(), saved)
    with pytest.raises(CheckpointError, match="grounding head but its tokenizer lacks <ground>"):
        _load(saved)
    (saved / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the tokenizer cannot be loaded"):
        _load(saved)
    for name in ("tokenizer.json", "merges.txt"):
        (saved / name).unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        _load(saved)


def test_tokenizers_load_from_vocabulary_and_merges(saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    loaded, text = _load(saved)
    sentence = "What is <ground> at <coord>?\n\n<|im_end|>"
    assert text(sentence)["input_ids"] == tokenizer()(sentence)["input_ids"]
    assert torch.equal(_total(loaded), _total(student()))


def test_teacher_channels(saved: Path) -> None:
    assert _load(saved)[0].teacher_channels == CHANNELS
    assert _load(saved, teacher_channels=0)[0].proj_3d is None
    with pytest.raises(CheckpointError, match="teacher of 16 channels"):
        _load(saved, teacher_channels=8)


def test_unusable_folders(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/config.json: cannot be read"):
        _load(tmp_path / "nowhere")
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model.safetensors: is damaged"):
        _load(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        _load(saved)


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
        _load(saved)


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
        _load(saved)
    default = {"rope_scaling": {"rope_type": "default"}}
    (saved / "config.json").write_text(json.dumps(config | default))
    assert torch.equal(_total(_load(saved)[0]), _total(student()))
