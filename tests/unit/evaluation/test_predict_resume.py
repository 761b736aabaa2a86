"""Inference resumed after a kill, and shared by ranks: the same bytes as of one whole run."""

import json
import os
import subprocess

import pytest

from fixtures.forked_jobs import forked_python
from fixtures.inference_run import (
    SCENES,
    SETTINGS,
    Fake,
    question,
    run,
)
from fixtures.repository import ROOT
from threedrs.evaluation.predict_benchmark import (
    keep_partial,
    partial_folder,
    predict_benchmark,
)
from threedrs.models.model_settings import PredictSettings
from threedrs.tasks.prediction import read_meta, read_predictions
from threedrs.tasks.record import write_records
from threedrs.tasks.registry import TASKS


def kill_in_the_second_scene(model, records, scenes, out):
    with pytest.raises(KeyboardInterrupt):
        run(model, records, scenes, out, Fake(stop_at={"q4"}))
    assert not out.exists()
    assert read_meta(out) is None


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, model, records, scenes, capsys):
    whole, out, fake = tmp_path / "a" / "p.jsonl", tmp_path / "b" / "p.jsonl", Fake()
    run(model, records, scenes, whole, Fake())
    kill_in_the_second_scene(model, records, scenes, out)
    (partial_folder(out) / f".{SCENES[1]}.jsonl.1.tmp").write_text('{"format_version": 1, "id')
    run(model, records, scenes, out, fake)
    assert fake.asked == ["q1", "q4", "q7", "q2", "q5", "q8"]
    assert "3 of 9 questions are answered already" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    assert read_meta(out)["timing"]["resumed"] == 3


@pytest.mark.parametrize("what", ["model", "settings", "records"])
def test_answers_of_something_else_are_not_used(tmp_path, model, records, scenes, what, capsys):
    out, fake, settings = tmp_path / "p.jsonl", Fake(), SETTINGS
    kill_in_the_second_scene(model, records, scenes, out)
    if what == "model":
        (model / "weights").write_text("2")
    elif what == "settings":
        settings = PredictSettings(prompt="as_trained")
    else:
        lines = records.read_text().splitlines(keepends=True)
        records.write_text("".join(reversed(lines)))
    run(model, records, scenes, out, fake, settings)
    assert len(fake.asked) == 9
    assert f"are of another {what}; starting over" in capsys.readouterr().err
    assert len(read_predictions(out, TASKS["scanqa"])) == 9


@pytest.mark.parametrize("damage", ["", "[]", "\0\0"])
def test_answers_of_unknown_inputs_are_not_used(tmp_path, model, records, scenes, damage, capsys):
    out, fake = tmp_path / "p.jsonl", Fake()
    kill_in_the_second_scene(model, records, scenes, out)
    (partial_folder(out) / "inputs.json").write_text(damage)
    run(model, records, scenes, out, fake)
    assert len(fake.asked) == 9
    assert "its answers are of unknown inputs; starting over" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "zeroed", "bad row", "row lost", "emptied"])
def test_the_scene_of_a_damaged_file_is_asked_about_again(tmp_path, model, records, scenes, damage):
    whole, out, fake = tmp_path / "a" / "p.jsonl", tmp_path / "b" / "p.jsonl", Fake()
    run(model, records, scenes, whole, Fake())
    kill_in_the_second_scene(model, records, scenes, out)
    (kept,) = partial_folder(out).glob("*.jsonl")
    text = kept.read_text()
    first = text.index("\n") + 1
    kept.write_text(
        {
            "cut": text[:-9],
            "zeroed": "\0" * len(text),
            "bad row": "[]\n" + text,
            "row lost": text[first:],
            "emptied": "",
        }[damage]
    )
    run(model, records, scenes, out, fake)
    assert len(fake.asked) == 9
    assert out.read_bytes() == whole.read_bytes()


def test_old_answers_that_cannot_be_removed_do_not_pass_for_new(tmp_path, monkeypatch):
    out = tmp_path / "p.jsonl"
    keep_partial(out, {"model": "a"})
    (partial_folder(out) / f"{SCENES[0]}.jsonl").write_text("")
    refused = PermissionError(13, "Permission denied", str(partial_folder(out)))

    def refuse(*_args, **_keywords):
        raise refused

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError):
        keep_partial(out, {"model": "b"})
    assert json.loads((partial_folder(out) / "inputs.json").read_text()) == {"model": "a"}


@pytest.mark.slow
def test_two_ranks_answer_as_one(tmp_path, scenes):
    """With the real student: the same bytes, also where finished scenes are found."""
    from threedrs.models.checkpoint.load_save import load_student, save_student
    from threedrs.models.model_settings import ModelSettings

    student, tokenizer = load_student(ModelSettings(seed=1), teacher_channels=0)
    save_student(student, tokenizer, tmp_path / "model")
    box = [0.0, 0, 0, 1, 1, 1]
    records = tmp_path / "records.jsonl"
    questions = [
        question(
            i, "scan2cap", SCENES[i * 7 % 3], references=["x"], box_input=box if i % 4 else None
        )
        for i in range(12)
    ]
    write_records(records, questions)
    outs = {ranks: tmp_path / f"of_{ranks}" / "predictions.jsonl" for ranks in (1, 2)}

    settings = {"max_new_tokens": 6}
    predict_benchmark(tmp_path / "model", records, scenes, PredictSettings(**settings), outs[1])
    whole = outs[1].read_bytes()
    rows = whole.decode().splitlines(keepends=True)
    assert len({json.loads(row)["prediction"] for row in rows}) > 1
    # What a killed run of one rank would have left: the answers of its first scene.
    kept = [row for row in rows if json.loads(row)["scene"] == SCENES[0]]
    keep_partial(outs[2], read_meta(outs[1])["inputs"])
    (partial_folder(outs[2]) / f"{SCENES[0]}.jsonl").write_text("".join(kept))

    command = [forked_python(), "-m", "threedrs.distributed.launch", "--gpus", "2"]
    command += ["threedrs.predict", "--model", tmp_path / "model", "--records", records]
    command += ["--scenes", scenes, "--out", outs[2], "--settings", json.dumps(settings)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} of 12 questions are answered already" in done.stderr
    assert outs[2].read_bytes() == whole
    assert read_meta(outs[2])["timing"] == read_meta(outs[2])["timing"] | {"ranks": 2, "resumed": 4}
