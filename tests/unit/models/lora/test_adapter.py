"""LoRA on the language model: exact at the start, exact when packed, merged, saved and loaded."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM
from typer.testing import CliRunner

from fixtures.adapters import LORA, new_tokens, save, stir, with_lora
from fixtures.adapters import saved as saved
from fixtures.cpu_kernels import CpuKernels
from fixtures.repository import ROOT
from fixtures.students import BOX_IDS, MIXED, pack, scene, student, tokenizer
from threedrs.cli import app
from threedrs.config.load import load_config
from threedrs.config.schema import LORA_TARGETS, LoraSettings
from threedrs.config.schema import SupervisionSettings as Supervision
from threedrs.errors import CheckpointError, ConfigError
from threedrs.models.attention import packed as pack_mask
from threedrs.models.attention.packed import PackMask
from threedrs.models.attention.prefix_suffix import Suffixes
from threedrs.models.backbones.known_backbones import backbone_names
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.lora.adapter import CONFIG, IN_FULL, WEIGHTS, Trained, save_adapter
from threedrs.models.lora.layers import (
    add_lora,
    is_added,
    merge_lora,
    train_only,
)
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Layout, Pack
from threedrs.models.prompt import build_sample
from threedrs.models.student import Student

SUPERVISION = Supervision(weight=0.7)


def logits(model: Student) -> torch.Tensor:
    """Logits of a short text that holds both new tokens."""
    ids = torch.tensor([5, *new_tokens(tokenizer()), 9, 70])
    hidden_TD, _ = model.run_language_model(model.embed(ids, (), ()), torch.arange(5)[None], None)
    return model.language_model.lm_head(hidden_TD).detach()


@cache
def family(name: str) -> tuple[Callable[[], Student], Pack]:
    """Return what builds the tiny student of a family, and a mixed pack for it."""

    def build() -> Student:
        return load_student(ModelSettings(name=name), teacher_channels=16)[0]

    tokens = load_student(ModelSettings(name=name))[1]
    samples = tuple(build_sample(r, BOX_IDS, tokens, label_chat_tokens=True) for r in MIXED)
    inputs = scene(frames=1, grid=build().family.grid)
    return build, Pack(scene=inputs, samples=samples)


@pytest.mark.slow
@pytest.mark.parametrize("name", backbone_names())
def test_the_start_is_the_base_model_bit_by_bit(name: str) -> None:
    build, packed = family(name)
    plain, adapted = build(), build()
    _, tokens = load_student(ModelSettings(name=name))
    add_lora(adapted, LORA, new_tokens(tokens), seed=1)
    for found, expected in zip(
        adapted(packed, SUPERVISION)[:3], plain(packed, SUPERVISION)[:3], strict=True
    ):
        assert torch.equal(found, expected)
    with torch.no_grad():
        stir(adapted)
        assert not torch.equal(
            adapted(packed, SUPERVISION).text_K, plain(packed, SUPERVISION).text_K
        )


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_and_rows_equal_slow_code(tied: bool) -> None:
    model = stir(with_lora(LoraSettings(rank=2, alpha=6, targets=("v_proj",)), tied=tied))
    state = model.language_model.state_dict()
    plain = student(tied=tied)
    weights = plain.language_model.state_dict()
    for number in range(3):
        name = f"model.layers.{number}.self_attn.v_proj"
        a_RI = state[f"{name}.lora_A.default.weight"]
        b_OR = state[f"{name}.lora_B.default.weight"]
        weights[f"{name}.weight"] += 6 / 2 * b_OR @ a_RI
    for matrix in ("model.embed_tokens", "lm_head"):
        for row, token in enumerate(new_tokens(tokenizer())):
            weights[f"{matrix}.weight"][token] = state[f"{matrix}.rows"][row]
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-5, atol=1e-5)
    merge_lora(model)
    assert set(model.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-5, atol=1e-5)


def gradients(model: Student, packs: list[Pack]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    for one in packs:
        model(one, SUPERVISION).total(SUPERVISION.weight).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {name: grad.clone() for name, grad in grads.items() if grad is not None}


def joined(layout: Layout, backend: str, tokens_TD: torch.Tensor) -> PackMask:
    places = Suffixes.of(layout, tokens_TD.device)
    return PackMask(prefix_length=layout.prefix_length, mask=places)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attention", "checkpointing"),
    [(name, "sdpa", True) for name in backbone_names()] + [("llava-video", "joined", False)],
)
def test_packed_gradients_equal_the_sum_over_single_samples(
    monkeypatch: pytest.MonkeyPatch, name: str, attention: str, checkpointing: bool
) -> None:
    build, packed = family(name)
    model = build()
    add_lora(model, LORA, new_tokens(load_student(ModelSettings(name=name))[1]), seed=1)
    stir(model)
    trained = train_only(model, ["language_model", "heads"])
    alone = [Pack(scene=packed.scene, samples=(sample,)) for sample in packed.samples]
    single = gradients(model, alone)
    if attention == "joined":  # as flash-attn does it, with torch's CPU kernels in its place
        monkeypatch.setattr(pack_mask, "flash_kernels", CpuKernels)
        monkeypatch.setattr("threedrs.models.student.pack_mask", joined)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.train()
    together = gradients(model, [packed])
    assert len(together) == sum(map(len, trained.values()))
    norm = torch.stack([gradient.norm() for gradient in single.values()]).norm()
    for parameter, expected in single.items():
        error = (together[parameter] - expected).norm()
        assert error <= 1e-5 * expected.norm() + 1e-8 * norm, parameter
    moved = [name for name, gradient in together.items() if gradient.norm() > 0]
    assert any("lora_A" in name for name in moved)
    assert "language_model.model.embed_tokens.rows" in moved
    assert "language_model.lm_head.rows" in moved


def test_only_the_named_layers_get_adapters() -> None:
    for targets in (("q_proj", "down_proj"), LORA_TARGETS):
        model = with_lora(LoraSettings(rank=3, alpha=1, targets=targets))
        named = [n for n, _ in model.named_parameters() if ".lora_A." in n]
        assert {name.split(".")[-4] for name in named} == set(targets)
        assert len(named) == 3 * len(targets)
        assert all(name.startswith("language_model.") for name in named)


def test_the_seed_decides_and_nothing_else_is_drawn() -> None:
    torch.manual_seed(0)
    first = with_lora().state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(0)
    student()
    assert torch.equal(torch.rand(1), drawn)
    second = with_lora().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# Saved and loaded


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
    config = json.loads((folder / CONFIG).read_text())
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
        match=r"base model is not in .*/base any more; write its new place to base_",
    ):
        load_student(ModelSettings(path=folder))
    config = json.loads((folder / CONFIG).read_text())
    config["base_model_name_or_path"] = str(tmp_path / "elsewhere")
    (folder / CONFIG).write_text(json.dumps(config))
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
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"r": 5}))
    with pytest.raises(CheckpointError, match=r"42 tensors do not fit .*e\.g\. language_model"):
        load_student(ModelSettings(path=folder))
    (folder / CONFIG).write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"adapter_config\.json: is not a LoRA adapter of ours"
    ):
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
        ({"wandb": {}}, "'project' is a required property"),
        ({"wandb": {"project": "p", "mode": "on"}}, "choose one of: online, offline"),
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
