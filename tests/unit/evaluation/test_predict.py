"""Inference: rows in question order, what needs no model, and input that cannot be answered."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fixtures.inference_run import (
    SCENES,
    SETTINGS,
    Fake,
    question,
    run,
)
from threedrs import predict as entry
from threedrs.errors import ConfigError, DataError, StoreError
from threedrs.evaluation.predict_benchmark import partial_folder
from threedrs.evaluation.score import score_file
from threedrs.evaluation.tables import notes
from threedrs.io.files import sha256_of_file
from threedrs.models.model_settings import PredictSettings
from threedrs.tasks.prediction import read_meta, read_predictions
from threedrs.tasks.record import write_records
from threedrs.tasks.registry import TASKS


def test_rows_stand_in_the_questions_order_and_scenes_are_opened_once(
    tmp_path, model, records, scenes, capsys
):
    out, fake = tmp_path / "out" / "predictions.jsonl", Fake()
    run(model, records, scenes, out, fake)
    rows = read_predictions(out, TASKS["scanqa"])
    assert [row.id for row in rows] == [f"q{i}" for i in range(9)]
    assert [row.prediction for row in rows] == [f"answer q{i}" for i in range(9)]
    assert rows[0].references == ("yes", "no")
    assert sorted(fake.opened) == list(SCENES)
    meta = read_meta(out)
    assert (meta["n"], meta["benchmark"]) == (9, "scanqa")
    assert meta["counts"] == {"scenes": 3, "without_model": 0}
    assert meta["predictions_sha256"] == sha256_of_file(out)
    assert meta["inputs"]["records"] == sha256_of_file(records)
    assert meta["decoding"] == SETTINGS.to_json()
    assert meta["timing"]["ranks"] == 1
    assert not partial_folder(out).exists()
    assert "9 of 9 questions" in capsys.readouterr().err


@pytest.mark.slow
def test_a_prediction_imports_no_package_that_it_does_not_use():
    program = (
        "import sys, threedrs.evaluation.predict_benchmark; heavy = ('deepspeed', 'peft', 'pandas',"
        " 'matplotlib', 'open3d', 'tensorboard', 'scipy.stats', 'snakemake'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_questions_of_left_out_scenes_are_not_asked_but_counted(tmp_path, model, scenes, records):
    summary = {"left_out": {"scene0044_00": 5}}
    records.with_suffix(".summary.json").write_text(json.dumps(summary))
    left_out = {SCENES[1]: "it is truncated", "scene0044_00": "of another mesh"}
    fewer = tmp_path / "scenes"
    fewer.mkdir()
    for scene in (SCENES[0], SCENES[2]):  # the left-out scene has no store at all
        (fewer / f"{scene}.zarr").symlink_to(scenes / f"{scene}.zarr")
    out, fake = tmp_path / "predictions.jsonl", Fake()
    run(model, records, fewer, out, fake, left_out=left_out)
    rows = read_predictions(out, TASKS["scanqa"])
    assert [row.id for row in rows] == ["q0", "q2", "q3", "q5", "q6", "q8"]
    assert fake.opened == [SCENES[0], SCENES[2]]
    meta = read_meta(out)
    assert (meta["n"], meta["counts"]["scenes"]) == (6, 2)
    assert meta["left_out"] == {
        "questions": 8,
        "scenes": [
            {"scene": SCENES[1], "reason": "it is truncated", "questions": 3},
            {"scene": "scene0044_00", "reason": "of another mesh", "questions": 5},
        ],
    }
    metrics = score_file(
        "scanqa", out, tmp_path / "metrics.json", run="a", bootstrap=0, meteor=False
    )
    assert (metrics["n"], metrics["left_out"]) == (6, meta["left_out"])
    assert "cannot be used: 8 more questions" in " ".join(notes(metrics))
    every = dict.fromkeys(SCENES, "no pose")
    with pytest.raises(DataError, match="every question is of a scene that is left out"):
        run(model, records, fewer, out, fake, left_out=every)


def test_grounding_rows_hold_scores_proposals_and_true_boxes(tmp_path, model, scenes):
    path, out = tmp_path / "r.jsonl", tmp_path / "predictions.jsonl"
    ids = ([9], [], [9, 4])
    write_records(
        path,
        [
            question(i, "multi3drefer", SCENES[0], object_ids=objects, question_type="mt")
            for i, objects in enumerate(ids)
        ],
    )
    run(model, path, scenes, out, Fake())
    one, none, two = read_predictions(out, TASKS["multi3drefer"])
    assert one.scores.tolist() == [0.1, 0.9, 0.2, -0.5]
    assert (one.boxes.shape, one.gt.shape, none.gt.shape, two.gt.shape) == (
        (3, 6),
        (1, 6),
        (0, 6),
        (2, 6),
    )
    assert two.gt[0].tolist() == one.gt[0].tolist()
    assert (one.prediction, one.question_type) == (None, "mt")


def test_an_object_without_a_true_box_is_an_error(tmp_path, model, scenes):
    path = tmp_path / "r.jsonl"
    write_records(path, [question(0, "scanrefer", SCENES[0], object_ids=[5])])
    with pytest.raises(DataError, match="object 5 of question 'q0' has no true box"):
        run(model, path, scenes, tmp_path / "p.jsonl", Fake())


def test_scan2cap_without_a_detector_box_is_empty_without_the_model(tmp_path, model, scenes):
    path, out, fake = tmp_path / "r.jsonl", tmp_path / "predictions.jsonl", Fake()
    box = [0.0, 0, 0, 1, 1, 1]
    write_records(
        path,
        [
            question(0, "scan2cap", SCENES[0], references=["a chair"], box_input=box),
            question(1, "scan2cap", SCENES[0], references=["a table"]),
            question(2, "scan2cap", SCENES[1], references=["a bed"]),
        ],
    )
    run(model, path, scenes, out, fake)
    rows = read_predictions(out, TASKS["scan2cap"])
    assert [row.prediction for row in rows] == ["answer q0", "", ""]
    assert (fake.asked, fake.opened) == (["q0"], [SCENES[0]])
    assert read_meta(out)["counts"]["without_model"] == 2


def test_a_missing_store_is_one_clear_error(tmp_path, model, scenes):
    path = tmp_path / "r.jsonl"
    write_records(path, [question(0, "scanqa", "scene0707_00", references=["x"])])
    with pytest.raises(StoreError, match=r"scene0707_00\.zarr: there is no scene store"):
        run(model, path, scenes, tmp_path / "p.jsonl", Fake())
    with pytest.raises(DataError, match="is not a folder with a trained model"):
        run(tmp_path / "none", path, scenes, tmp_path / "p.jsonl", Fake())


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "holds no questions"),
        ([question(0, "scanqa", SCENES[0])], "line 1: an evaluation question needs references"),
        ([question(0, "scanqa", SCENES[0], references=["x"])] * 2, "line 2: id 'q0' stands"),
        (
            [
                question(0, "scanqa", SCENES[0], references=["x"]),
                question(1, "sqa3d", SCENES[0], references=["x"]),
            ],
            "line 2: is of sqa3d, line 1 of scanqa",
        ),
        ([question(0, "scanrefer", SCENES[0])], "line 1: a grounding question needs object_ids"),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(tmp_path, model, scenes, questions, message):
    path = tmp_path / "r.jsonl"
    write_records(path, questions)
    with pytest.raises(DataError, match=message):
        run(model, path, scenes, tmp_path / "p.jsonl", Fake())


def test_settings_name_what_is_valid():
    assert PredictSettings(**SETTINGS.to_json()) == SETTINGS
    for value, message in (
        ({"promt": "reference"}, "promt is not a key; did you mean prompt"),
        ({"prompt": "plain"}, "settings.prompt is 'plain'; choose one of: reference, as_trained"),
        ({"boxes": "all"}, "choose one of: gt, pred"),
        ({"self": 1}, r"settings\.self is not a key; valid keys: prompt"),
        ({"max_new_tokens": 0}, "settings.max_new_tokens: 0 is less than the minimum of 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            PredictSettings(**value)


def test_the_entry_point_ends_in_one_line(tmp_path, model, records, scenes, monkeypatch, capsys):
    arguments = ["predict", "--model", str(tmp_path / "none"), "--records", str(records)]
    arguments += ["--scenes", str(scenes), "--out", str(tmp_path / "p.jsonl")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert "is not a folder with a trained model" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*arguments, "--settings", "{"])
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert capsys.readouterr().err.startswith("predict: rank 0: --settings: is not JSON")
    monkeypatch.setattr(sys, "argv", [*arguments, "--settings", "[]"])
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert "predict: rank 0: --settings: expected a JSON object" in capsys.readouterr().err


def test_the_tiny_student_answers_both_kinds(tmp_path, scenes, monkeypatch):
    from threedrs.models.checkpoint.load_save import load_student, save_student
    from threedrs.models.model_settings import ModelSettings

    student, tokenizer = load_student(ModelSettings(seed=1), teacher_channels=8)
    save_student(student, tokenizer, tmp_path / "model")
    questions = {
        "scanqa": [question(i, "scanqa", SCENES[i], references=["yes"]) for i in range(2)],
        "scanrefer": [question(i, "scanrefer", SCENES[i], object_ids=[4]) for i in range(2)],
    }
    for benchmark, rows in questions.items():
        records, out = tmp_path / f"{benchmark}.jsonl", tmp_path / benchmark / "predictions.jsonl"
        write_records(records, rows)
        arguments = ["--model", tmp_path / "model", "--records", records, "--scenes", scenes]
        arguments += ["--out", out, "--settings", json.dumps(SETTINGS.to_json())]
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        assert entry.main() == 0
        read = read_predictions(out, TASKS[benchmark])
        assert [row.id for row in read] == ["q0", "q1"]
        if benchmark == "scanrefer":
            assert all(
                row.scores.shape == (4,) and np.abs(row.scores).max() <= 1.001 for row in read
            )
        else:
            assert all(isinstance(row.prediction, str) for row in read)
