"""Controls: the same questions without images, and with another room's."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t

from fixtures.inference_run import SCENES, SETTINGS, Fake, question, run
from fixtures.students import TEXT, scene
from fixtures.summary_files import metrics_file, question_file, summary_of
from threedrs.config.schema import Control
from threedrs.errors import ConfigError, DataError
from threedrs.evaluation.aggregate import _control_rows
from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.evaluation.compare import PerQuestion
from threedrs.evaluation.controls import looking
from threedrs.evaluation.predict_benchmark import _shown_rooms
from threedrs.metrics.bootstrap import mean_metric
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.prompt import build_query
from threedrs.scenes.store import SceneStore
from threedrs.tasks.prediction import read_meta, read_predictions
from threedrs.tasks.record import write_records
from threedrs.tasks.registry import TASKS


def controlled(control: Control):
    return SETTINGS.model_copy(update={"control": control})


def test_another_room_is_shown_and_the_rows_stay_the_questions(tmp_path, model, records, scenes):
    out, fake = tmp_path / "predictions.jsonl", Fake()
    run(model, records, scenes, out, fake, controlled("other_room"))
    # Scenes are asked in the order of their first questions, and each shows the next one.
    assert fake.opened == [SCENES[1], SCENES[2], SCENES[0]]
    rows = read_predictions(out, TASKS["scanqa"])
    assert [row.scene for row in rows] == [SCENES[i % 3] for i in range(9)]
    assert read_meta(out)["decoding"]["control"] == "other_room"


def test_another_scan_of_the_same_room_is_no_other_room():
    scans = ["scene0000_00", "scene0000_01", "scene0007_00", "scene0009_00"]
    assert _shown_rooms(scans, controlled("other_room")) == {
        "scene0000_00": "scene0007_00",
        "scene0000_01": "scene0007_00",
        "scene0007_00": "scene0009_00",
        "scene0009_00": "scene0000_00",
    }
    for control in (None, "text_only"):
        assert _shown_rooms(scans, controlled(control)) == {scan: scan for scan in scans}
    with pytest.raises(DataError, match="all questions are of the room scene0000"):
        _shown_rooms(scans[:2], controlled("other_room"))


def test_a_limit_leaves_other_rooms_to_show(tmp_path, model, scenes):
    records, out, fake = tmp_path / "scanqa_val.jsonl", tmp_path / "predictions.jsonl", Fake()
    order = [SCENES[0], SCENES[0], SCENES[2]]
    write_records(
        records, [question(i, "scanqa", s, references=["yes"]) for i, s in enumerate(order)]
    )
    settings = controlled("other_room").model_copy(update={"limit": 2})
    run(model, records, scenes, out, fake, settings)
    assert fake.opened == [SCENES[2]]
    assert [row.scene for row in read_predictions(out, TASKS["scanqa"])] == [SCENES[0]] * 2
    # The answers depend on the room that was shown.
    inputs = read_meta(out)["inputs"]["scenes"]
    plain = tmp_path / "plain.jsonl"
    run(model, records, scenes, plain, Fake(), SETTINGS.model_copy(update={"limit": 2}))
    assert read_meta(plain)["inputs"]["scenes"] != inputs


def test_boxes_of_a_room_are_not_asked_for_as_a_control(tmp_path, model, scenes):
    records = tmp_path / "scanrefer_val.jsonl"
    write_records(records, [question(0, "scanrefer", SCENES[0], object_ids=[4])])
    with pytest.raises(ConfigError, match="control text_only: ScanRefer is answered with boxes"):
        run(model, records, scenes, tmp_path / "p.jsonl", Fake(), controlled("text_only"))


@pytest.mark.parametrize("name", ["llava-video", "qwen2-vl"])
def test_without_images_a_question_is_a_text_and_nothing_else(name, scenes):
    """Against the language model alone on the prompt's tokens, counted from 0, without a cache."""
    model, words = load_student(ModelSettings(name=name), teacher_channels=0)
    with torch.no_grad():
        for parameter in model.language_model.model.layers.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)  # so that random weights give answers that differ
    settings = controlled("text_only")
    answers = StudentAnswerer(model, words, settings).open(
        SceneStore.open(scenes / f"{SCENES[0]}.zarr")
    )
    query = build_query(TEXT, words, prompt="reference")
    session = answers.session
    assert session.prefix_length == len(query.prefix.before_ids) + len(query.prefix.after_ids)
    ids = [*query.prefix.before_ids, *query.prefix.after_ids, *query.input_ids.tolist()]
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(6):
            tokens = model.embed(torch.tensor(ids + expected))
            positions = torch.arange(len(tokens))[None]
            # Text counts the same number for frame, row and column.
            positions = positions.expand(3, 1, -1) if name == "qwen2-vl" else positions
            hidden, _ = model.run_language_model(tokens, positions, None)
            token = int(model.language_model.lm_head(hidden[-1]).argmax())
            if token in session.decoding.ends:
                break
            expected.append(token)
    assert session.generate([query], 6) == [expected]


def test_a_scene_without_images_keeps_its_boxes():
    bare = scene(channels=None).without_images()
    assert bare.visual_tokens == 0
    assert torch.equal(bare.boxes_N6, scene().boxes_N6)


def test_controls_are_rows_of_their_settings(tmp_path):
    files = {}
    for run_name, value in (("3drs", 30.0), ("3drs-b", 34.0), ("baseline", 20.0)):
        path = tmp_path / f"{run_name}.json"
        metrics = {name: {"value": value} for name in TASKS["sqa3d"].metrics}
        content = {"format_version": 1, "run": run_name, "benchmark": "sqa3d", "metrics": metrics}
        path.write_text(json.dumps(content))
        files[run_name, "sqa3d", "text_only"] = path
    groups = [
        {"name": "baseline", "runs": ["baseline"]},
        {"name": "3drs (2 seeds)", "runs": ["3drs", "3drs-b"]},
    ]
    rows = _control_rows(groups, files)
    assert [row["name"] for row in rows] == ["baseline, no images", "3drs (2 seeds), no images"]
    assert rows[1]["metrics"]["sqa3d"]["em"]["mean"] == 32
    assert "without images" in rows[0]["how"]
    assert _control_rows(groups, {}) == []


def asked_again(benchmark, right_RQ):
    """Trainings whose answers to three questions in each of four rooms are right or wrong."""
    rooms = np.repeat([f"scene{room:04d}_00" for room in range(4)], 3)
    return [
        PerQuestion(
            ids=tuple(map(str, range(12))),
            scenes=tuple(rooms),
            question_types=("",) * 12,
            metrics={name: mean_metric(right_Q) for name in TASKS[benchmark].metrics},
        )
        for right_Q in right_RQ
    ]


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_is_looking_is_taken_by_training_and_by_room(seeds):
    draw = np.random.default_rng(seeds)
    seen, unseen = draw.integers(0, 2, (2, seeds, 12)).astype(float)
    found = looking(asked_again("sqa3d", seen), asked_again("sqa3d", unseen))["em"]
    apart = 100 * (seen - unseen).mean(axis=1)
    assert found["difference"] == pytest.approx(apart.mean())
    # The jackknife of a mean of equal rooms is the variance of the rooms' means.
    by_room = 100 * (seen - unseen).mean(axis=0).reshape(4, 3).mean(axis=1)
    squared = student_t.ppf(0.975, 3) ** 2 * by_room.var(ddof=1) / 4
    if seeds > 1:
        squared += student_t.ppf(0.975, seeds - 1) ** 2 * apart.var(ddof=1) / seeds
    ends = apart.mean() - squared**0.5, apart.mean() + squared**0.5
    assert (found["low"], found["high"]) == pytest.approx(ends)


def test_the_summary_says_how_much_is_looking(tmp_path):
    paths = []
    for name, share in (("with", 0.8), ("without", 0.6)):
        values = dict.fromkeys(TASKS["sqa3d"].metrics, 100 * share)
        paths.append(metrics_file(tmp_path / name, "baseline", "sqa3d", values))
        question_file(tmp_path / name, "baseline", "sqa3d", share)
    path, control = paths
    files = {("baseline", "sqa3d"): path}
    asked = {"questions": {("baseline", "sqa3d"): path.with_name("per_question.npz")}}
    summary_of(tmp_path, files, **asked)
    unknown = "How much of the scores on SQA3D comes from the images is not known. eval.controls"
    assert unknown in (tmp_path / "summary.md").read_text()
    summary = summary_of(
        tmp_path, files, **asked, control_files={("baseline", "sqa3d", "text_only"): control}
    )
    # All rooms are alike, so that the interval has no width.
    (gain,) = {tuple(one.values()) for one in summary["groups"][0]["looking"]["sqa3d"].values()}
    assert gain == pytest.approx((20, 20, 20))
    said = (tmp_path / "summary.md").read_text()
    assert "What the images add to baseline: SQA3D EM +20.0 points" in said
    assert "(95 % interval +20.0 to +20.0)" in said
    assert "The interval is over rooms, of this one training." in said
    assert unknown not in said
