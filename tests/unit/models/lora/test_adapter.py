"""Folders with a LoRA adapter: saved, loaded, merged, and damaged; and the settings."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM
from typer.testing import CliRunner

from fixtures.adapters import LORA, logits, new_tokens, save, stir, with_lora
from fixtures.adapters import saved as saved
from fixtures.repository import ROOT
from fixtures.students import pack, student, tokenizer
from threedrs.cli import app
from threedrs.config.load import load_config
from threedrs.config.schema import LORA_TARGETS, LoraSettings
from threedrs.config.schema import SupervisionSettings as Supervision
from threedrs.errors import CheckpointError, ConfigError
from threedrs.models.checkpoint.folder import ADAPTER_FILE
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.lora.adapter import IN_FULL, WEIGHTS, Trained, save_adapter
from threedrs.models.lora.layers import add_lora, is_added, merge_lora
from threedrs.models.model_settings import ModelSettings
from threedrs.models.student import Student

SUPERVISION = Supervision(weight=0.7)


def test_a_loaded_adapter_is_the_trained_student(saved: tuple[Student, Path]) -> None:
    model, folder = saved
    loaded, tokens = load_student(ModelSettings(path=folder))
    state = loaded.state_dict()
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert new_tokens(tokens) == new_tokens(tokenizer())
    assert not loaded.training


def test_the_bases_weights_are_not_written_again(saved: tuple[Student, Path]) -> None:
    model, folder = saved
    names = set(load_file(folder / WEIGHTS)) | set(load_file(folder / IN_FULL))
    assert not any("base_layer" in name or "vision_tower" in name for name in names)
    assert "ground_head_zero_target" in names
    assert "model.mm_projector.0.weight" in names
    added = [p for n, p in model.named_parameters() if is_added(n)]
    heads = model.parameter_groups()["heads"] + model.parameter_groups()["projector"]
    written = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert written < 4 * sum(p.numel() for p in [*added, *heads]) + 20_000
    modes = {file.stat().st_mode for file in folder.glob("*.safetensors")}
    assert modes == {(folder / "config.json").stat().st_mode}


def test_the_adapter_is_in_pefts_own_format(saved: tuple[Student, Path]) -> None:
    model, folder = saved
    plain = student().language_model
    assert isinstance(plain, Qwen2ForCausalLM)
    plain.config._attn_implementation = "sdpa"
    ids = torch.tensor([[5, *new_tokens(tokenizer()), 9, 70]])
    found = PeftModel.from_pretrained(plain, str(folder))(ids).logits[0]
    torch.testing.assert_close(found, logits(model), rtol=1e-5, atol=1e-5)
    config = json.loads((folder / ADAPTER_FILE).read_text())
    assert config["base_model_name_or_path"] == str(folder.parent / "base")


def test_merged_on_the_command_line(saved: tuple[Student, Path]) -> None:
    model, folder = saved
    (folder / "README.md").write_text("# run\n")
    out = folder.parent / "merged"
    result = CliRunner().invoke(app, ["model", "merge", str(folder), str(out)])
    assert result.exit_code == 0, result.output
    merged, _ = load_student(ModelSettings(path=out), teacher_channels=16)
    assert set(merged.state_dict()) == set(student().state_dict())
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-5, atol=1e-5)
    packed = pack()
    for found, expected in zip(
        merged(packed, SUPERVISION)[:3], model(packed, SUPERVISION)[:3], strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (out / "README.md").read_text().startswith("# run\n")
    with pytest.raises(CheckpointError, match="merged: is there already; choose another place"):
        CliRunner().invoke(app, ["model", "merge", str(folder), str(out)], catch_exceptions=False)
    with pytest.raises(CheckpointError, match=r"base: holds no adapter \(adapter_config.json"):
        CliRunner().invoke(
            app, ["model", "merge", str(folder.parent / "base"), "x"], catch_exceptions=False
        )


def test_a_tied_student_keeps_its_one_matrix(tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_student(student(tied=True), tokenizer(), base)
    model = stir(with_lora(tied=True))
    folder = save(model, tmp_path / "model", base)
    loaded, _ = load_student(ModelSettings(path=folder))
    assert torch.equal(logits(loaded), logits(model))
    assert sum(name.endswith("tokens_delta") for name in load_file(folder / WEIGHTS)) == 1
    merge_lora(loaded)
    head, embedding = loaded.language_model.lm_head, loaded.language_model.get_input_embeddings()
    assert head.weight is embedding.weight
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2-vl"])
def test_random_weights_are_drawn_again_and_checked(tmp_path: Path, name: str) -> None:
    settings = ModelSettings(name=name, seed=7)
    model, tokens = load_student(settings, teacher_channels=8)
    add_lora(model, LORA, new_tokens(tokens), seed=7)
    stir(model.to(torch.bfloat16))
    trained = Trained(lora=LORA, groups=("heads",))
    save_adapter(model, tokens, tmp_path, state=model.state_dict(), base=settings, trained=trained)
    loaded, _ = load_student(ModelSettings(path=tmp_path))
    assert all(torch.equal(loaded.state_dict()[n], v) for n, v in model.state_dict().items())

    config = json.loads((tmp_path / "config.json").read_text())
    config["threedrs"]["base"]["seed"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="the random weights of seed 8, is not the one of"):
        load_student(ModelSettings(path=tmp_path))


def test_a_base_that_moved_or_changed(saved: tuple[Student, Path], tmp_path: Path) -> None:
    model, folder = saved
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(
        CheckpointError,
        match=r"its base model, .*/base, is not there; write the folder that holds it to base_",
    ):
        load_student(ModelSettings(path=folder))
    config = json.loads((folder / ADAPTER_FILE).read_text())
    config["base_model_name_or_path"] = str(tmp_path / "elsewhere")
    (folder / ADAPTER_FILE).write_text(json.dumps(config))
    assert torch.equal(logits(load_student(ModelSettings(path=folder))[0]), logits(model))
    save_student(student(seed=5), tokenizer(), tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="elsewhere, is not the one of its training; give it"):
        load_student(ModelSettings(path=folder))


def test_damaged_adapters_are_one_line(saved: tuple[Student, Path]) -> None:
    _, folder = saved
    with pytest.raises(CheckpointError, match="is an adapter, which cannot be trained on; make"):
        load_student(ModelSettings(path=folder), teacher_channels=16)
    whole = (folder / IN_FULL).read_bytes()
    (folder / IN_FULL).write_bytes(whole[:-9])
    with pytest.raises(CheckpointError, match=r"trained_in_full.safetensors: is damaged"):
        load_student(ModelSettings(path=folder))
    (folder / IN_FULL).unlink()
    with pytest.raises(CheckpointError, match=r"trained_in_full.safetensors: is missing; copy"):
        load_student(ModelSettings(path=folder))
    (folder / IN_FULL).write_bytes(whole)
    config = json.loads((folder / ADAPTER_FILE).read_text())
    (folder / ADAPTER_FILE).write_text(json.dumps(config | {"r": 5}))
    with pytest.raises(CheckpointError, match=r"42 tensors do not fit .*e\.g\. language_model"):
        load_student(ModelSettings(path=folder))
    (folder / ADAPTER_FILE).write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"adapter_config\.json: is not a LoRA adapter of ours"
    ):
        load_student(ModelSettings(path=folder))


def test_a_damaged_description_of_an_adapter_is_one_line(saved: tuple[Student, Path]) -> None:
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    del config["torch_dtype"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: torch_dtype or the section"):
        load_student(ModelSettings(path=folder))
    config["threedrs"]["base"] |= {"size": "8b", "seed": "x"}
    (folder / "config.json").write_text(json.dumps(config))
    faults = r"\(threedrs\.base\.seed: 'x' is not .*; threedrs\.base\.size is '8b'; choose .*\)$"
    with pytest.raises(CheckpointError, match=faults):
        load_student(ModelSettings(path=folder))


# Settings


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rank": 4}, "train.lora: 'alpha' is a required property"),
        ({"rank": 4, "alpha": 8, "r": 1}, "train.lora.r is not a key; valid keys: rank, alpha"),
        ({"rank": 0, "alpha": 8}, "rank: 0 is less than the minimum of 1"),
        ({"rank": 4, "alpha": 0}, "alpha: 0 is less than or equal to the minimum of 0"),
        ({"rank": 4, "alpha": 8, "dropout": 1.0}, "dropout: 1 is greater than or equal to the max"),
        ({"rank": 4, "alpha": 8, "targets": ["q"]}, "targets.0 is 'q'; choose one of: q_proj"),
        ({"rank": 4, "alpha": 8, "targets": []}, r"targets: \[\] should be non-empty"),
    ],
)
def test_bad_settings(section: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraSettings(**section)


def test_the_same_adapters_have_the_same_settings() -> None:
    first = LoraSettings(rank=4, alpha=8)
    second = LoraSettings(rank=4, alpha=8.0, dropout=0.0, targets=[*reversed(LORA_TARGETS)])
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"lora": {"rank": 4}}, "'alpha' is a required property"),
        ({"lora": {"rank": 4, "alpha": 8, "dropuot": 0}}, "dropuot is not a key; did you mean"),
        (
            {"lora": {"rank": 4, "alpha": 8}, "tunable": ["heads"]},
            "runs.3drs: train.lora: adapters train the language model, which train.tunable leaves",
        ),
    ],
)
def test_the_configuration_is_checked_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, train: dict, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("config/config.yaml").read_text())
    config["train"] |= train
    with pytest.raises(ConfigError, match=message):
        load_config(config)
