"""Models that are not trained here: base models without heads, students before training, limits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fixtures.inference_run import SCENES, SETTINGS, Fake, question
from fixtures.inference_run import run as predict
from fixtures.saved_students import saved as saved  # a fixture
from threedrs.errors import CheckpointError, ConfigError
from threedrs.evaluation.aggregate import aggregate
from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.evaluation.score import score_file
from threedrs.evaluation.tables import markdown_table, metrics_table, notes
from threedrs.io.files import write_json
from threedrs.tasks.prediction import read_meta, read_predictions
from threedrs.tasks.record import write_records
from threedrs.tasks.registry import TASKS


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder without the tensors of a grounding head."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({"model.norm.weight": torch.ones(2)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def grounding(tmp_path: Path) -> Path:
    path = tmp_path / "scanrefer_val.jsonl"
    rows = [question(i, "scanrefer", SCENES[i], object_ids=[9]) for i in range(3)]
    write_records(path, rows)
    return path


def test_a_model_without_a_head_does_not_answer_grounding(
    tmp_path: Path, base: Path, grounding: Path, scenes: Path
) -> None:
    out, fake = tmp_path / "eval/zero/scanrefer/predictions.jsonl", Fake()
    out.parent.mkdir(parents=True)
    predict(base, grounding, scenes, out, fake)
    assert fake.opened == []
    assert read_predictions(out, TASKS["scanrefer"]) == []
    result = score_file("scanrefer", out, tmp_path / "m.json", per_question=tmp_path / "q.npz")
    assert (result["n"], result["by_type"]) == (0, {})
    assert result["unanswered"] == "the model has no grounding head"
    nothing = {"value": None, "low": None, "high": None}
    reason = "not answered: the model has no grounding head"
    assert result["metrics"]["acc@0.25"] == {**nothing, "unavailable": reason}
    assert f"acc@0.25 is unavailable: {reason}" in notes(result)


def test_a_summary_counts_what_is_not_answered_as_nothing_and_not_as_zero(
    tmp_path: Path, base: Path, grounding: Path, scenes: Path
) -> None:
    metrics, per_question = {}, {}
    for run, model in (("zero", base), ("3drs", tmp_path / "trained")):
        model.mkdir(exist_ok=True)
        out = tmp_path / run / "predictions.jsonl"
        out.parent.mkdir()
        predict(model, grounding, scenes, out, Fake())
        metrics[run, "scanrefer"] = out.with_name("metrics.json")
        per_question[run, "scanrefer"] = out.with_name("q.npz")
        score_file(
            *("scanrefer", out, metrics[run, "scanrefer"]),
            run=run,
            per_question=per_question[run, "scanrefer"],
        )
    configs = {run: tmp_path / run / "config.json" for run in ("zero", "3drs")}
    write_json(configs["zero"], {"run": "zero", "train": {"seed": 1}, "checkpoint": "base"})
    write_json(configs["3drs"], {"run": "3drs", "train": {"seed": 1}})
    for baseline in ("3drs", "zero"):
        summary = aggregate(
            metrics,
            per_question_files=per_question,
            baseline=baseline,
            train_summaries={},
            run_configs=configs,
            out=tmp_path / "summary.json",
        )
        assert all(not group["comparison"] for group in summary["groups"])
        zero = next(group for group in summary["groups"] if group["name"] == "zero")
        assert zero["metrics"] == {"scanrefer": {}}
        row = (tmp_path / "summary.csv").read_text().splitlines()[1]
        assert row.startswith("zero,,,,")
        assert row.endswith("scanrefer is not answered: the model has no grounding head")
        table = markdown_table(summary)
        assert "| zero | – | – |" in table
        assert "zero does not answer scanrefer: the model has no grounding head" in table
        assert "Questions: scanrefer 3." in table


def test_a_limit_is_named_wherever_the_numbers_stand(
    tmp_path: Path, model: Path, records: Path, scenes: Path
) -> None:
    out = tmp_path / "3drs/scanqa/predictions.jsonl"
    out.parent.mkdir(parents=True)
    settings = SETTINGS.replace(limit=4)
    predict(model, records, scenes, out, Fake(), settings)
    assert [row.id for row in read_predictions(out, TASKS["scanqa"])] == ["q0", "q1", "q2", "q3"]
    meta = read_meta(out)
    assert meta is not None
    assert meta["limit"] == {"questions": 4, "of": 9}
    result = score_file("scanqa", out, tmp_path / "m.json", meteor=False, bootstrap=0)
    assert result["limit"] == {"questions": 4, "of": 9}
    assert metrics_table(result).title == (
        "ScanQA, run 3drs, percent, the first 4 of 9 questions only"
    )
    assert "with a limit on the questions this is not a score of the benchmark" in notes(result)


def test_a_student_answers_as_its_training_would_start(tmp_path: Path, scenes: Path) -> None:
    config = {
        "model": {"name": "llava-video", "size": "tiny", "path": None, "grid": 14},
        "geometry": {"coordinate_dtype": "float32"},
        "train": {"seed": 5},
    }
    write_json(tmp_path / "config.json", config)
    first, again, other = (
        StudentAnswerer.load(path, SETTINGS, torch.device("cpu")).student.state_dict()
        for path in (tmp_path / "config.json", tmp_path / "config.json", _other(tmp_path, config))
    )
    name = "grounding_head.obj.3.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def _other(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "other.json").write_text(json.dumps({**config, "train": {"seed": 6}}))
    return folder / "other.json"


def test_one_command_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures.repository import ROOT
    from threedrs.evaluation.one_checkpoint import evaluate_checkpoint

    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        with pytest.raises(ConfigError, match="run threedrs eval from the repository's folder"):
            evaluate_checkpoint("initial")
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"runs\.nowhere: checkpoint: no/nowhere is not a folder"):
        evaluate_checkpoint("no/nowhere")
    for name in (None, "other"):
        with pytest.raises(ConfigError, match="baseline: this run is not trained yet; run"):
            evaluate_checkpoint("baseline", name=name)
    # Training would not make what a run of the configuration names as its checkpoint.
    ready = {"runs": {"ready": {"checkpoint": "no/ready"}}}
    with pytest.raises(ConfigError, match=r"runs\.other: checkpoint: ready is not a folder"):
        evaluate_checkpoint("ready", name="other", values=ready)
    with pytest.raises(ConfigError, match="scanqua"):
        evaluate_checkpoint("initial", benchmarks=["scanqua"])


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("no/train/A/model", "A-model"),
        ("no/train/B/model", "B-model"),
        ("no/train/A/checkpoint-200", "A-checkpoint-200"),
        ("no/train/A/C/../model", "A-model"),
        ("no/a b", "a-b"),
        ("no/_model", "model"),
    ],
)
def test_checkpoints_of_two_trainings_have_two_names(
    checkpoint: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fixtures.repository import ROOT
    from threedrs.evaluation.one_checkpoint import evaluate_checkpoint

    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=rf"runs\.{name}: checkpoint: {checkpoint} is not"):
        evaluate_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("checkpoint", "name"), [("no/3drs", None), ("no/baseline", None), ("no/other", "3drs")]
)
def test_a_checkpoint_does_not_take_the_name_of_a_run(
    checkpoint: str, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fixtures.repository import ROOT
    from threedrs.evaluation.one_checkpoint import evaluate_checkpoint

    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"is a run of the configuration.*--name"):
        evaluate_checkpoint(checkpoint, name=name)


def test_a_checkpoint_that_cannot_be_loaded_is_named_before_the_workflow(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fixtures.repository import ROOT
    from threedrs.evaluation import one_checkpoint

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(one_checkpoint, "write_json", lambda *ignored: pytest.fail("started"))
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "mm_projector_type": "linear"}))
    with pytest.raises(CheckpointError, match="mm_projector_type is 'linear', this version"):
        one_checkpoint.evaluate_checkpoint(str(saved), name="own")


def test_a_misspelt_key_of_another_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fixtures.repository import ROOT
    from threedrs.evaluation.one_checkpoint import evaluate_checkpoint

    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"runs\.3drs\.trian is not a key; did you mean train"):
        evaluate_checkpoint("initial", values={"runs": {"3drs": {"trian": {"seed": 1}}}})
