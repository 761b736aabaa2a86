"""Training with LoRA: what changes, the exact gradient, and whole runs that stop and go on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fixtures.repository import ROOT
from fixtures.training_run import (
    OUT,
    change_train,
    edit_config,
    lone_ranks,
    records,
    run,
    write_run,
)
from fixtures.training_steps import (
    SUPERVISION,
    plans,
    settings,
    step,
    tiny_student,
    whole_gradient,
    whole_weights,
)
from fixtures.training_steps import reader as reader  # a fixture
from threedrs.config.schema import LoraSettings
from threedrs.distributed.gpus import own_device
from threedrs.errors import ConfigError
from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.lora.adapter import IN_FULL, WEIGHTS
from threedrs.models.lora.layers import add_lora, is_added, trained_parameters
from threedrs.models.model_settings import ModelSettings, PredictSettings
from threedrs.models.prompt import token_id
from threedrs.models.student import Student
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import COORD, GROUND
from threedrs.teachers.known_teachers import teacher_channels
from threedrs.training.engine import build_engine
from threedrs.training.pack_reader import PackReader
from threedrs.training.recipe import fingerprint, fingerprint_changes
from threedrs.training.run_log import growing_log, read_rows

pytestmark = pytest.mark.slow

LORA = {"rank": 4, "alpha": 8}


def adapted(**lora: Any) -> Student:
    """The tiny student with adapters that are not at their start."""
    student = tiny_student()
    tokenizer = load_student(ModelSettings())[1]
    tokens = [token_id(tokenizer, token) for token in (GROUND, COORD)]
    add_lora(student, LoraSettings(**LORA | lora), tokens, seed=0)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained_parameters(student, ["language_model"])["language_model"]:
            parameter += 0.05 * torch.randn(parameter.shape, generator=random)
    return student


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_the_step_is_exact_and_changes_what_is_trained(reader: PackReader, stage: str) -> None:
    lone_ranks()
    reference, student = adapted(), adapted()
    for plan in plans((0,), (1,), (2,)):
        losses = reference(reader.read(plan), SUPERVISION)
        loss = losses.text_K[0] + losses.grounding_K[0] + 0.5 * losses.supervision
        (loss / 3).backward()
    path = str(ROOT / f"config/deepspeed/{stage}.json")
    recipe = settings(
        global_batch=3,
        pack=1,
        warmup_fraction=0.0,
        gradient_clip=1e9,
        deepspeed=path,
        lora=LORA,
        tunable=["projector", "language_model", "heads"],
        gradient_checkpointing=True,
    )
    student.gradient_checkpointing_enable()
    student.train()
    engine = build_engine(student, recipe, SUPERVISION, lone_ranks(), total_steps=10)
    assert [group["name"] for group in engine.optimizer.param_groups] == list(recipe.tunable)
    gradients: dict[str, torch.Tensor] = {}
    update = engine.step

    def keep_gradients() -> None:
        for name, parameter in student.named_parameters():
            if parameter.requires_grad:
                gradients[name] = whole_gradient(parameter).clone()
        update()

    engine.step = keep_gradients
    step(engine, reader, plans((0, 2), (1,)))

    trained = {n for n, p in student.named_parameters() if p.requires_grad}
    whole = ("projector.", "newline_tokens.", "grounding_head.", "proj_3d.")
    assert trained == {n for n in gradients if is_added(n) or n.startswith(whole)}
    before = dict(adapted().named_parameters())
    norm = torch.stack([p.grad.norm() for n, p in reference.named_parameters() if n in trained])
    for name, parameter in reference.named_parameters():
        if name in trained:
            error = (gradients[name] - parameter.grad).norm()
            assert error <= 1e-5 * parameter.grad.norm() + 1e-8 * norm.norm(), name
            after = whole_weights(student.get_parameter(name))
            assert not torch.equal(after, before[name]), name
        elif stage == "zero2":
            assert torch.equal(student.get_parameter(name), before[name]), name
    assert sum(is_added(name) for name in trained) == 2 * 7 * 3 + 2


def test_a_language_model_that_is_not_tunable_takes_no_adapters() -> None:
    with pytest.raises(ConfigError, match=r"train\.lora: adapters train the language model, which"):
        settings(lora=LORA, tunable=["vision_tower", "heads"])


def test_fingerprint_sees_the_adapters_and_not_where_rows_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(write_run(tmp_path, lora=LORA).read_text())
    monkeypatch.chdir(tmp_path)
    before = fingerprint(config, {}, {})
    change_train(config, lora=LORA | {"dropout": 0.0}, wandb={"project": "3drs"})
    assert fingerprint(config, {}, {}) == before
    config["train"]["lora"] = LORA | {"rank": 8}
    assert fingerprint_changes(before, fingerprint(config, {}, {})).startswith("train.lora (")


# Whole runs


def rows(folder: Path) -> list[dict]:
    found = read_rows(growing_log(folder / OUT))
    return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in found]


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_a_run_that_goes_on_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    deepspeed = str(ROOT / f"config/deepspeed/{stage}.json")
    tunable = ["language_model", "heads"]
    recipe = {"lora": LORA | {"dropout": 0.1}, "tunable": tunable, "deepspeed": deepspeed}
    write_run(tmp_path, samples=12, save_every=1, keep=9, **recipe)
    edit_config(tmp_path / OUT / "config.json", epochs=1)
    run(tmp_path, monkeypatch)
    expected = rows(tmp_path)
    assert [row["step"] for row in expected] == [1, 2, 3]
    shutil.move(tmp_path / OUT / "model", tmp_path / "first")
    for name in ("train.json", "checkpoints/step-00000002", "checkpoints/step-00000003"):
        gone = tmp_path / OUT / name
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()

    run(tmp_path, monkeypatch)

    assert rows(tmp_path) == expected
    for name in (WEIGHTS, IN_FULL):
        first = (tmp_path / "first" / name).read_bytes()
        assert (tmp_path / OUT / "model" / name).read_bytes() == first


def is_head(name: str) -> bool:
    return name.startswith(("ground_head", "model.proj_3d"))


def test_a_run_on_a_checkpoint_leaves_an_adapter_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = teacher_channels("vggt-tiny")
    base, tokenizer = load_student(ModelSettings(seed=3), teacher_channels=channels)
    save_student(base, tokenizer, tmp_path / "base")
    write_run(tmp_path, samples=4, epochs=1, lora=LORA, tunable=["language_model"])
    path = tmp_path / OUT / "config.json"
    config = json.loads(path.read_text())
    config["model"] |= {"size": "7b", "path": "base"}
    path.write_text(json.dumps(config))

    run(tmp_path, monkeypatch)

    model = tmp_path / OUT / "model"
    assert sorted(file.name for file in model.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "added_tokens.json",
        "config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "trained_in_full.safetensors",
        "vocab.json",
    ]
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    assert size < (tmp_path / "base/model.safetensors").stat().st_size / 3  # heads are large here
    heads = {n: t for n, t in load_file(tmp_path / "base/model.safetensors").items() if is_head(n)}
    kept = load_file(model / IN_FULL)
    assert set(kept) == set(heads)
    assert all(torch.equal(kept[name], heads[name]) for name in heads)  # not tunable here
    card = (model / "README.md").read_text()
    assert "LoRA adapters on q_proj" in card
    assert "a change of the base model, base, and need it" in card
    assert json.loads((tmp_path / OUT / "train.json").read_text())["versions"]["peft"]
    answerer = StudentAnswerer.load(
        model, PredictSettings(boxes="gt", max_new_tokens=3), own_device()
    )
    scene = answerer.open(SceneStore.open(tmp_path / "results/scenes/scene0000_00.zarr"))
    asked = records(3)
    assert isinstance(scene.texts([asked[0]])[0], str)
    assert len(scene.scores([asked[1]])[0]) == 3


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_a_run_in_bfloat16_on_a_float32_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    deepspeed = str(ROOT / f"config/deepspeed/{stage}.json")
    recipe = {"lora": LORA, "tunable": ["language_model", "heads"], "deepspeed": deepspeed}
    write_run(tmp_path, samples=4, epochs=1, precision="bfloat16", **recipe)

    run(tmp_path, monkeypatch)

    assert {tensor.dtype for tensor in load_file(OUT / "model" / WEIGHTS).values()} == {
        torch.bfloat16
    }
    student, _ = load_student(ModelSettings(path=OUT / "model"))
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
