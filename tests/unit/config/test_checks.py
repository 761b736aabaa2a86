"""What cannot work in a run is said before anything runs; what is not certain is let through."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.repository import ROOT
from threedrs.config.checks import batch_problem
from threedrs.config.load import load_config, resolve_run
from threedrs.errors import ConfigError
from threedrs.models.backbones.family import LAYERS, SIZES
from threedrs.models.backbones.known_backbones import backbone_names
from threedrs.models.model_settings import ModelSettings
from threedrs.models.new_student import empty_student


def problems_of(config: dict) -> list[str]:
    """Return what is wrong with the run `3drs`, a line each."""
    config["runs"] = {"3drs": {}, "baseline": {"teacher": {"name": "none"}}}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    lines = str(error.value).splitlines()
    return [line.removeprefix("config: ") for line in lines if "baseline" not in line]


@pytest.mark.parametrize(
    ("section", "change", "line"),
    [
        ("model", {"attention": "flash"}, "flash computes in half precision; set train.precision"),
        ("supervision", {"layer": 3}, "supervision.layer: 3 is not a layer .* last, or 0 to 2"),
        ("execution", {"max_length": 1680}, "max_length is 1680; the 8 frames .* are 1680 tokens"),
        ("execution", {"deepspeed": "README.md"}, r"execution\.deepspeed: README\.md"),
        ("model", {"path": "docs"}, r"model\.path: docs/config\.json"),
    ],
)
def test_what_would_fail_hours_later_is_said_before(
    config: dict, section: str, change: dict, line: str
) -> None:
    config[section].update(change)
    (found,) = problems_of(config)
    assert re.match(rf"runs\.3drs: .*{line}", found)


def test_what_is_not_certain_is_let_through(config: dict, tmp_path: Path) -> None:
    """Fewer frames of a coverage, layers that a checkpoint decides, files on their way."""
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 40, "model_type": "llava_qwen"})
    )
    (tmp_path / "model.safetensors").write_bytes(b"")
    config["frames"]["strategy"] = "coverage"
    config["supervision"]["layer"] = 39
    config["execution"]["max_length"] = 1680
    config["model"] |= {"size": "7b", "path": str(tmp_path)}
    load_config(config)
    config["supervision"]["layer"] = 40
    (found,) = problems_of(config)
    assert "supervision.layer: 40 is not a layer of this model; valid: last, or 0 to 39" in found
    config["model"]["path"] = str(tmp_path / "later")
    config["download"] = [{"repo": "a/b", "files": ["config.json"], "to": config["model"]["path"]}]
    load_config(config)


def test_frames_of_a_published_checkpoint_are_counted(config: dict, tmp_path: Path) -> None:
    """It does not name its grid, and is read with the 14 x 14 of its family."""
    checkpoint = tmp_path / "config.json"
    checkpoint.write_text(json.dumps({"num_hidden_layers": 28, "model_type": "qwen2_vl"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    config["frames"]["count"] = 400
    config["model"] |= {"name": "qwen2-vl", "size": "7b", "path": str(tmp_path), "grid": None}
    (found,) = problems_of(config)
    assert "max_length is 32768; the 400 frames of a scene alone are 78400 tokens" in found
    # The grid with which a student of ours was trained counts: 49 tokens a frame.
    ours = {"num_hidden_layers": 28, "model_type": "qwen2_vl", "threedrs": {"grid": 7}}
    checkpoint.write_text(json.dumps(ours))
    load_config(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "not valid JSON|is no JSON|JSON"),
        ('{"zero_optimization": {"stage": 1}}', "stage is 1; choose one of: 2, 3"),
        (
            '{"zero_optimization": {"stage": 2}, "fp16": {}}',
            "the section `train` sets fp16; remove it",
        ),
        ('{"zero_optimization": {"stage": 2}, "aio": {}}', "aio is not a key; valid keys"),
    ],
)
def test_a_deepspeed_file_that_training_refuses(
    config: dict, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    config["execution"]["deepspeed"] = str(file)
    (found,) = problems_of(config)
    assert re.search(rf"execution\.deepspeed: .*mine\.json.*({message})", found)


def test_a_batch_has_to_fit_the_ranks(config: dict, tmp_path: Path) -> None:
    config["model"] |= {"size": "7b", "random_weights": True}
    config["train"] |= {"global_batch": 16, "pack": 4}
    run = resolve_run(load_config(config), "3drs")

    def problem(ranks: int | None) -> str:
        return batch_problem(run, lambda name, asked: {"gpu": ranks}.get(name, asked), tmp_path)

    refused = (
        "train.pack 4 x 8 ranks x accumulation is not train.global_batch 16; with 8 ranks "
        "train.pack may be 1, 2; or change what the job asks for (set-resources)"
    )
    assert [problem(ranks) for ranks in (4, None, 8)] == [None, None, refused]
    run["train"]["global_batch"] = 12
    assert "train.global_batch may be 32, or another multiple of 32" in problem(8)


def test_what_was_trained_needs_no_ranks(config: dict, tmp_path: Path) -> None:
    config["train"] |= {"global_batch": 8, "pack": 8}
    run = resolve_run(load_config(config), "3drs")

    def refused() -> bool:
        return batch_problem(run, lambda name, asked: 8, tmp_path) is not None

    assert refused()
    (tmp_path / "train.json").write_text("{}")
    assert not refused()


def test_all_that_is_wrong_with_a_run_is_said(config: dict) -> None:
    config["model"] |= {"size": "7b", "grid": 7}
    config["train"] |= {"lora": {"rank": 4, "alpha": 8}, "tunable": ["heads"], "pack": 3}
    said = " ".join(problems_of(config))
    for part in ("model.grid: ", "model.path: ", "train.lora: ", "train.pack 3"):
        assert said.count(f"runs.3drs: {part}") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", backbone_names())
def test_sizes_that_the_check_knows_are_those_of_the_students(name: str) -> None:
    for size in SIZES:
        settings = ModelSettings(name=name, size=size, random_weights=size == "7b")
        student = empty_student(settings, 0)
        assert student.text_config.num_hidden_layers == LAYERS[size]
        assert student.family.grid.frame_tokens == settings.frame_tokens
    if name == "qwen2-vl":
        coarse = ModelSettings(name=name, grid=7)
        assert coarse.frame_tokens == empty_student(coarse, 0).family.grid.frame_tokens == 49
        assert ModelSettings(name=name, path=Path("m")).frame_tokens is None  # on its way


def test_the_check_imports_no_torch() -> None:
    code = (
        "import sys, yaml; from threedrs.config.load import load_config; "
        "config = yaml.safe_load(open('config/config.yaml')); "
        "load_config(config); "
        "print({'torch', 'deepspeed', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_a_teachers_weights_are_looked_for_below_the_data_root(
    config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    below = "scannet/posed_images_3d_feature_vggt"
    (tmp_path / below).mkdir(parents=True)
    config["data"] |= {"root": str(tmp_path), "demo": None}
    config["teacher"] |= {"name": "import", "weights": below}
    assert load_config(config)["teacher"]["weights"] == f"{tmp_path}/{below}"
    config["teacher"]["weights"] = {"import": below, "dinov2": "nowhere"}
    assert load_config(config)["teacher"]["weights"] == {
        "import": f"{tmp_path}/{below}",
        "dinov2": "nowhere",
    }
    config["teacher"]["weights"] = "config"  # there as it stands
    assert load_config(config)["teacher"]["weights"] == "config"
    config["teacher"]["weights"] = "nowhere"
    with pytest.raises(ConfigError, match=r"teacher\.weights: nowhere is not a folder"):
        load_config(config)


def test_a_student_that_is_not_the_checkpoints_is_named(config: dict, tmp_path: Path) -> None:
    """The demo's student stands in config.yaml, below a run that names one other key alone."""
    config["model"] = {"size": "7b"}
    (found,) = problems_of(config)
    assert found == (
        "runs.3drs: model.path: models/demo_student holds a student of size mini, and model.size "
        "is 7b; set model.path to another folder"
    )
    config["model"] = {"size": "small"}
    (found,) = problems_of(config)
    assert found.endswith("set model.path to another folder, or null for random weights")
    remedy = "set model.path to another folder, or null for random weights"
    config["model"] = {"name": "llava-video"}
    assert problems_of(config) == [
        "runs.3drs: model.path: models/demo_student is a checkpoint of qwen2-vl, model.name is "
        f"llava-video; {remedy}"
    ]
    config["model"] = {"grid": 14}
    assert problems_of(config) == [
        "runs.3drs: model.path: models/demo_student was trained with model.grid 7, this run has "
        f"14; {remedy}"
    ]
    # Of a width that is not one of ours nothing is known.
    config["model"] = {"size": "small"}
    (tmp_path / "config.json").write_text(
        json.dumps({"hidden_size": 100, "model_type": "qwen2_vl"})
    )
    (tmp_path / "model.safetensors").write_bytes(b"")
    config["model"]["path"] = str(tmp_path)
    load_config(config)


def test_a_checkpoint_that_no_backbone_reads_is_named(config: dict, tmp_path: Path) -> None:
    """Whether it is evaluated as it is or trained on."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    said = (
        f"{tmp_path} has model_type 'gpt2', which no backbone here reads; choose a checkpoint of "
        f"{', '.join(backbone_names())}, or see docs/ADD_A_BACKBONE.md"
    )
    for run, key in (
        ({"checkpoint": str(tmp_path)}, "checkpoint"),
        ({"model": {"path": str(tmp_path)}}, "model.path"),
    ):
        config["runs"] = {"3drs": run, "baseline": {"model": {"path": None}}}
        with pytest.raises(ConfigError, match=re.escape(f"runs.3drs: {key}: {said}")):
            load_config(config)
    # A family that `model.name` does not say is as good as any where nothing is trained.
    config["runs"] = {"3drs": {"checkpoint": "models/demo_student"}}
    config["runs"]["baseline"] = {"model": {"path": None}}
    config["model"] = {"name": "llava-video"}
    load_config(config)
