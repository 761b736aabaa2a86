"""The estimate before a run: against arithmetic by hand, and against what was measured."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fixtures.repository import ROOT
from fixtures.tiny_config import tiny_config
from threedrs.cli import app
from threedrs.config.load import load_config
from threedrs.config.resources import GPUS
from threedrs.errors import ConfigError
from threedrs.models.model_settings import ModelSettings
from threedrs.planning.training import Machine, plan_run, usual_gpus
from threedrs.training.full_pack import GIB


@pytest.mark.parametrize(
    ("kept", "pack", "measured_gib", "measured_seconds"),
    [(0, 1, 51.5, 4.385), (None, 1, 97.1, 3.359), (None, 8, 103.2, 3.565)],
)
def test_zero3_that_was_measured(
    kept: int | None, pack: int, measured_gib: float, measured_seconds: float
) -> None:
    """Four H200, 4 packs a GPU and step, buckets of 5e8; None: nothing recomputed."""
    config = _paper()
    config["train"] |= {"pack": pack, "global_batch": 16 * pack}
    config["execution"] |= {
        "gradient_checkpointing": kept is not None,
        "kept_layers": kept or 0,
    }
    machine = Machine(gpus=4, memory=GPUS["H200"][1] * 1e9)
    plan = plan_run(config, machine, teacher_channels=2048, samples=1)
    assert plan.memory["gathered parameters"] == 2 * plan.parameters
    assert measured_gib <= plan.total / GIB <= 1.06 * measured_gib
    assert plan.seconds_a_step == pytest.approx(measured_seconds, rel=0.05)


def test_what_two_h200_have_trained_fits_them() -> None:
    config = _paper()
    config["train"] |= {"pack": 8, "global_batch": 128}
    config["execution"] |= {"gradient_checkpointing": False}
    memory = GPUS["H200"][1] * 1e9
    plan = plan_run(config, Machine(gpus=2, memory=memory), teacher_channels=2048, samples=1)
    assert 132.3 * GIB <= plan.total <= memory
    # Steps of eight packs a GPU and of one, as measured: what a step takes beside its packs counts.
    assert plan.seconds_a_step == pytest.approx(7.499, rel=0.05)
    config["train"] |= {"global_batch": 16}
    config["execution"] |= {"gradient_checkpointing": True, "kept_layers": 48}
    plan = plan_run(config, Machine(gpus=2, memory=memory), teacher_channels=2048, samples=1)
    assert plan.seconds_a_step == pytest.approx(1.04, rel=0.05)


def _paper() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for section, values in yaml.safe_load((ROOT / "config/paper.yaml").read_text()).items():
        config[section] = {**config[section], **values}
    config["execution"]["deepspeed"] = str(ROOT / config["execution"]["deepspeed"])
    return config


def test_time_from_operations() -> None:
    machine = Machine(gpus=8, memory=80e9, peak=1e15, utilisation=0.5)
    paper = _paper()
    paper["execution"]["kept_layers"] = 0
    plan = plan_run(paper, machine, teacher_channels=2048, samples=3200)
    # 6 operations a weight and token: 28 layers of 233,046,016 weights; attention besides.
    tokens = 32 * 210 + 44 + 64
    weights = 28 * (2 * 3584 * (3584 + 512) + 3 * 3584 * 18944)
    attention = 12 * 28 * 3584 * tokens * (tokens + 1) / 2
    tower = 26 * (4 * 1152**2 + 2 * 1152 * 4304) * 6 + 26 * 12 * 1152 * 729
    tower = 32 * 729 * (tower + 6 * 3 * 14 * 14 * 1152)
    projector = 32 * 729 * 6 * (1152 * 3584 + 3584**2)
    head = 6 * (2 * 3584**2 + 2 * 3584 * 2048) * 32 * 196
    language = 6 * weights * tokens + attention + 6 * 3584 * 152064 * 20
    operations = tower + projector + language + head
    assert plan.tokens == tokens
    assert plan.seconds_a_step == pytest.approx(16 * operations / 4e15, rel=1e-6)
    assert plan.hours_an_epoch == pytest.approx(3200 * operations / 4e15 / 3600, rel=1e-6)
    # In the paper's proportions 1519 questions, 526 captions and 1155 groundings, less a step each.
    assert plan.steps_an_epoch == 94 + 32 + 72
    paper["train"]["batches"] = "mixed"
    for samples, drop_last, steps in ((3200, False, 200), (3201, False, 201), (3201, True, 200)):
        paper["train"]["drop_last"] = drop_last
        mixed = plan_run(paper, machine, teacher_channels=2048, samples=samples)
        assert mixed.steps_an_epoch == steps
    assert plan.total < 80e9
    assert (plan.layers, plan.most_kept_layers) == (54, 41)
    assert plan.utilisation == pytest.approx(0.5)
    # What is recomputed, all layers of both towers, is a third of their operations.
    usual = plan_run(
        paper, dataclasses.replace(machine, utilisation=None), teacher_channels=2048, samples=1
    )
    # Each of the eight GPUs has two packs a step.
    seconds = 2 * (operations + (tower + language) / 3) / 0.44e15 + 0.12
    assert usual.seconds_a_step == pytest.approx(seconds, rel=1e-6)
    assert usual.utilisation == pytest.approx(2 * operations / 1e15 / seconds, rel=1e-6)


def test_a_small_student_waits_for_the_host() -> None:
    """Its packs take as long as measured (RESULTS.md, "What fills a step"), whatever the GPU."""
    paper = _paper()
    paper["model"] |= {"size": "small"}
    paper["train"] |= {"pack": 96, "global_batch": 192}
    paper["execution"]["gradient_checkpointing"] = False
    for deepspeed, recorded, seconds in (
        ("zero2", False, 2 * 0.05),
        ("zero2", True, 2 * 0.02),
        ("zero3", True, 2 * 0.05 + 0.12),  # records nothing, and has a cost beside its packs
    ):
        paper["execution"] |= {
            "deepspeed": str(ROOT / f"config/deepspeed/{deepspeed}.json"),
            "record_passes": recorded,
        }
        plans = [
            plan_run(
                paper,
                Machine(gpus=1, memory=80e9, peak=peak),
                teacher_channels=0,
                samples=192 * 3600,
            )
            for peak in (1e16, 1e17)
        ]
        for plan in plans:
            assert plan.seconds_a_step == pytest.approx(seconds)
            assert plan.hours_an_epoch == pytest.approx(seconds)
        assert plans[0].utilisation == pytest.approx(10 * plans[1].utilisation)
    asked = Machine(gpus=1, memory=80e9, peak=1e15, utilisation=0.4)
    assert plan_run(paper, asked, teacher_channels=0, samples=1).seconds_a_step < 0.1


def test_what_does_not_fit_keeps_no_layers() -> None:
    machine = Machine(gpus=1, memory=24e9)
    config = _paper()
    config["execution"]["kept_layers"] = 4
    plan = plan_run(config, machine, teacher_channels=2048, samples=16)
    assert plan.total > 100e9
    assert (plan.kept_layers, plan.most_kept_layers) == (4, 0)
    plan = plan_run(_paper(), machine, teacher_channels=2048, samples=16)
    assert (plan.kept_layers, plan.most_kept_layers) == (0, None)
    config["execution"]["gradient_checkpointing"] = False
    assert plan_run(config, machine, teacher_channels=2048, samples=16).most_kept_layers is None


def test_without_arguments_it_is_the_papers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, ["plan", "--gpus", "4", "--json"], catch_exceptions=False)
    plans = json.loads(result.stdout)
    assert [*plans] == ["3drs"]
    facts = plans["3drs"]
    assert facts["parameters"] == 8_122_138_400
    assert facts["samples"] == 223_128
    assert facts["fits"]
    assert facts["would_fit"] == []
    text = CliRunner().invoke(app, ["plan", "--gpus", "4"], catch_exceptions=False).stdout
    assert "4 GPUs of 85 GB\n" in text
    assert "GB: fits\n" in text
    # `auto` took all that its headroom leaves, so nothing is said of more.
    assert f"\n  {facts['kept_layers']} of 54 layers keep their activations\n" in text
    assert "13944 steps" in text
    assert "\n  not counted: what ZeRO-3 copies for its update, 4 to 6 GB at 7B, after the" in text
    assert "never measured" not in text


def test_what_was_never_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = ["--configfile", "config/paper.yaml", "--config", "execution={kept_layers: 0}"]
    options += ["execution={deepspeed: config/deepspeed/zero2.json}", "--gpus", "4"]
    asked = ["plan", *options, "--run", "3drs", "--gpu", "H200"]
    facts = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["3drs"]
    assert facts["memory"]["update"] > 0
    text = CliRunner().invoke(app, asked).stdout
    assert "\n  the part of the update is computed and was never measured\n" in text
    assert "not counted" not in text


def test_a_number_of_kept_layers_is_told_how_many_more_there_could_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "own.yaml").write_text("execution: {kept_layers: 3}\n")
    files = ["config/config.yaml", "config/paper.yaml", str(tmp_path / "own.yaml")]
    command = ["plan", "--gpus", "4", *(word for file in files for word in ("--configfile", file))]
    text = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    kept = "\n  3 of 54 layers keep their activations; execution.kept_layers may be "
    more, _, _ = text.partition(kept)[2].partition(" (faster)\n")
    assert 3 < int(more) <= 28


@pytest.mark.slow
def test_what_does_not_fit_has_a_remedy_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = CliRunner().invoke(app, ["plan", "--gpu", "RTX4090", "--gpus", "4"])
    assert found.exit_code == 1
    assert "4 GPUs of 25.3 GB\n" in found.stdout
    assert "GB: does NOT fit\n" in found.stdout
    offload = "would fit: execution.deepspeed: config/deepspeed/zero3_offload.json ("
    assert offload in found.stdout
    assert "would fit: --gpu A100 (" in found.stdout


def test_a_batch_decides_how_many_gpus_are_usual(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The demo's batch is one pack of 8, and the paper's 16 packs of 1."""
    monkeypatch.chdir(ROOT)
    command = ["plan", "--configfile", "config/config.yaml"]
    said = CliRunner().invoke(app, command, catch_exceptions=False)
    assert said.exit_code == 0
    assert "3drs: 0.01 billion parameters, 1 GPU of 85 GB\n" in said.stdout
    assert "\nseeds: 2 settings are planned" in said.stdout
    assert {usual_gpus({"train": {"pack": pack, "global_batch": batch}}) for pack, batch in
            ((1, 16), (2, 16), (1, 24))} == {8}  # fmt: skip
    assert usual_gpus({"train": {"pack": 2, "global_batch": 12}}) == 6
    assert usual_gpus({"train": {"pack": 3, "global_batch": 7}}) == 1


def test_imported_features_are_planned_as_those_of_vggt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    plans, texts = {}, {}
    for teacher in ("vggt", "import"):
        file = tmp_path / f"{teacher}.yaml"
        file.write_text(f"teacher: {{name: {teacher}}}")
        options = ["plan", "--configfile", str(file), "--gpus", "1"]
        found = CliRunner().invoke(app, [*options, "--json"], catch_exceptions=False).stdout
        plans[teacher] = json.loads(found)
        texts[teacher] = CliRunner().invoke(app, options, catch_exceptions=False).stdout
    notes = [plan["3drs"].pop("note") for plan in plans.values()]
    assert plans["vggt"] == plans["import"]
    assert notes[0] is None
    assert notes[1].startswith("teacher import: 2048 channels are reckoned with, VGGT's; ")
    assert f"\n  note: {notes[1]}\n" in texts["import"]
    assert texts["import"].count("note:") == 1  # the baseline has no teacher
    assert "note:" not in texts["vggt"]


def test_bad_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match="is not trained; choose one of: 3drs, baseline"):
        CliRunner().invoke(app, ["plan", "--run", "x"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="did you mean L40S"):
        CliRunner().invoke(app, ["plan", "--gpu", "l40"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="global_batch may be 15 or 18"):
        CliRunner().invoke(app, ["plan", "--gpus", "3"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="utilisation 2 is not between"):
        Machine(gpus=1, memory=1, utilisation=2)
    for asked in ({"gpus": 0}, {"memory": math.nan}, {"peak": math.inf}):
        with pytest.raises(ConfigError, match="must be finite and above 0"):
            Machine(**{"gpus": 1, "memory": 1, **asked})
    machine = Machine(gpus=3, memory=1)
    with pytest.raises(ConfigError, match="global_batch may be"):
        plan_run(_paper(), machine, teacher_channels=0, samples=1)
    assert dataclasses.asdict(machine)["peak"] == 989e12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"own\.yaml: is not YAML"),
        ("train", r"own\.yaml: holds no sections"),
        ("- train: 1", r"own\.yaml: holds no sections"),
        ("runs: {3drs: {teacher: none}}", r"runs\.3drs\.teacher: 'none' is not of type 'object'"),
        ("runs: [3drs]", r"config: runs: \['3drs'\] is not of type 'object'"),
        ("runs: {3drs: {teacher: {name: vgtt}}}", r"runs\.3drs\.teacher\.name is 'vgtt'; choose"),
        ("teacher: {name: [vggt]}", r"teacher\.name is \['vggt'\]; choose one of"),
        ("model: 7b", r"config: model: '7b' is not of type 'object'"),
    ],
)
def test_a_wrong_configuration_file_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, ["plan", "--configfile", str(file)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"size": "7b"}, "size 7b needs a checkpoint folder; .*model.random_weights: true"),
        ({"grid": 7}, "model.grid: llava-video has a 14x14 grid; set it to 14"),
        (
            {"size": "7b", "random_weights": True, "path": "."},
            "model.path names a checkpoint, \\.; set one of them",
        ),
        ({"name": "llava"}, "choose one of: llava-video, llava-onevision, qwen2-vl"),
    ],
)
def test_configuration_says_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(ROOT)
    config = tiny_config()
    config["model"] |= model
    with pytest.raises(ConfigError, match=message):
        load_config(config)


def test_random_weights_start_without_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = tiny_config()
    config["model"] |= {"name": "qwen2-vl", "grid": 7, "size": "7b", "random_weights": True}
    checked = load_config(config)
    assert ModelSettings.from_config({**checked, "geometry": checked["geometry"]}).random_weights


@pytest.mark.slow
def test_seeds_are_counted_over_all_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    file = tmp_path / "own.yaml"
    file.write_text(
        "runs:\n"
        "  as-it-is: {checkpoint: initial}\n"
        "  again: {extends: 3drs, train: {seed: 7}, execution: {keep: 7}}\n"
        "  base-again: {extends: baseline, train: {seed: 7, eval_every: 50}}\n"
    )
    options = ["plan", "--configfile", "config/paper.yaml", "--configfile", str(file)]
    for more in ([], ["--run", "3drs"], ["--cluster", "config/cluster.yaml"]):
        text = CliRunner().invoke(app, [*options, *more], catch_exceptions=False).stdout
        assert "seeds: 2 settings are planned, each with 2 trainings or more. " in text
