"""Awareness of a model on scene stores, its file, and metrics by quartile."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fixtures.inference_run import SCENES, write_scenes
from fixtures.students import student, tokenizer
from threedrs.cli import app
from threedrs.errors import DataError
from threedrs.evaluation.awareness import (
    metric_by_quartile,
    quartile_of_questions,
    read_awareness,
)
from threedrs.evaluation.compare import PerQuestion
from threedrs.metrics.bootstrap import mean_metric
from threedrs.models.checkpoint.load_save import save_student
from threedrs.models.inference import SceneSession
from threedrs.models.model_settings import PredictSettings
from threedrs.models.scene_inputs import read_scene
from threedrs.models.voxel_awareness import scene_awareness
from threedrs.scenes.store import SceneStore


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained run, 3drs, and the stores of three val scenes."""
    folder = tmp_path_factory.mktemp("results")
    write_scenes(folder / "results" / "scenes")
    save_student(student(), tokenizer(), folder / "results" / "train" / "3drs" / "model")
    return folder


def test_a_run_is_measured_scene_by_scene(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results)
    found = CliRunner().invoke(app, ["awareness", "3drs", "--out", "own.json"])
    assert found.exit_code == 0, found.output
    assert "across_frames 0.0000, mean of 3 scenes" in found.output  # one frame a scene
    result = read_awareness(Path("own.json"))
    assert list(result["scenes"]) == list(SCENES)
    store = SceneStore.open(Path(f"results/scenes/{SCENES[0]}.zarr"))
    inputs = read_scene(store, "pred")
    session = SceneSession(student(), tokenizer(), inputs, prompt="reference")
    assert session.visual_VGGD.shape[:3] == (1, 14, 14)
    own = scene_awareness(
        session.visual_VGGD.flatten(0, 2),
        inputs.patch_xyz_VGG3.flatten(0, 2),
        torch.zeros(196, dtype=torch.int64),
    )
    row = result["scenes"][SCENES[0]]
    assert row["all_pairs"] == pytest.approx(own.all_pairs, abs=1e-5)
    assert row["pairs"] == own.pairs
    mean = np.mean([row["all_pairs"] for row in result["scenes"].values()])
    assert result["mean"]["all_pairs"] == pytest.approx(mean, abs=1e-6)


def test_a_runs_model_is_asked_as_it_was_trained(tmp_path: Path) -> None:
    """What the run's settings and the call leave out has its default; a call goes first."""
    run = tmp_path / "3drs"
    model = run / "model"
    model.mkdir(parents=True)
    assert PredictSettings.for_model(model, {}).coordinate_dtype == "float32"
    config = {"run": "3drs", "geometry": {"coordinate_dtype": "float16"}}
    (run / "config.json").write_text(json.dumps(config))
    for path in (model, run / "config.json"):
        assert PredictSettings.for_model(path, {}).coordinate_dtype == "float16"
        given = PredictSettings.for_model(path, {"coordinate_dtype": "bfloat16"})
        assert given.coordinate_dtype == "bfloat16"
    other = tmp_path / "3drs" / "checkpoint"  # a model of its own beside a run's settings
    other.mkdir()
    assert PredictSettings.for_model(other, {}) == PredictSettings()
    (run / "config.json").write_text('{"architectures": ["LlavaQwenForCausalLM"]}')
    assert PredictSettings.for_model(model, {}) == PredictSettings()


def test_scenes_that_are_left_out_are_not_measured(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results)
    listed, out = tmp_path / "val.json", tmp_path / "awareness.json"
    listed.write_text(json.dumps({"left_out": [{"scene": SCENES[1], "reason": "bad"}]}))
    command = ["awareness", "results/train/3drs/model", "--left-out", str(listed)]
    assert CliRunner().invoke(app, [*command, "--out", str(out)]).exit_code == 0
    assert list(read_awareness(out)["scenes"]) == [SCENES[0], SCENES[2]]


def test_what_cannot_be_measured_is_said(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results)
    unknown = CliRunner().invoke(app, ["awareness", "3dr", "--out", "own.json"])
    assert "did you mean 3drs? results/train holds trained runs 3drs" in str(unknown.exception)
    none = CliRunner().invoke(app, ["awareness", "3drs", "--split", "train", "--out", "own.json"])
    assert isinstance(none.exception, DataError)
    settings = CliRunner().invoke(
        app, ["awareness", "3drs", "--settings", "{", "--out", "own.json"]
    )
    assert "--settings: is not JSON" in str(settings.exception)


@pytest.mark.parametrize("content", ['{"format_version": 1}', "{"])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "awareness.json"
    file.write_text(content)
    with pytest.raises(DataError, match=r"awareness\.json: is (not|of format)"):
        read_awareness(file)


def test_questions_are_cut_into_quarters_and_a_scene_stays_whole() -> None:
    scores = {"a": 0.9, "b": 0.1, "c": 0.5, "d": 0.3}
    scenes = ["a", "b", "c", "d", "a", "b", "c", "d"]
    assert quartile_of_questions(scores, scenes).tolist() == [3, 0, 2, 1, 3, 0, 2, 1]
    # of ten questions six are of the lowest scene: their middle is in the second quarter
    scenes = ["b"] * 6 + ["d"] * 3 + ["a"]
    assert quartile_of_questions(scores, scenes).tolist() == [1] * 6 + [3] * 3 + [3]
    with pytest.raises(DataError, match="e: has questions and no awareness"):
        quartile_of_questions(scores, ["a", "e"])


def test_the_metric_of_each_quarter() -> None:
    scenes = ("a", "b", "c", "d", "a")
    questions = PerQuestion(
        ids=("0", "1", "2", "3", "4"),
        scenes=scenes,
        question_types=("",) * 5,
        metrics={"em": mean_metric([1, 0, 1, 0, 0])},
    )
    scores = {"a": 0.9, "b": 0.1, "c": 0.5, "d": 0.3}
    # sorted b d c a a: middles 0.5, 1.5, 2.5, 4 of 5 questions
    assert metric_by_quartile(questions, "em", scores) == [0.0, 0.0, 100.0, 50.0]
    one = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1}
    assert metric_by_quartile(questions, "em", one)[0] == 50.0
