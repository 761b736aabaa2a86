"""Controls: the same questions without images, and with another room's."""

import json

import pytest
import torch

from fixtures.inference_run import SCENES, SETTINGS, Fake, question, run
from fixtures.students import TEXT, scene
from threedrs.config.schema import Control
from threedrs.errors import ConfigError, DataError
from threedrs.evaluation.aggregate import _control_rows
from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.evaluation.predict_benchmark import _shown_rooms
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
    session = answers._session
    assert session.prefix_length == len(query.prefix.before_ids) + len(query.prefix.after_ids)
    ids = [*query.prefix.before_ids, *query.prefix.after_ids, *query.input_ids.tolist()]
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(6):
            tokens = model.embed(torch.tensor(ids + expected), (), ())
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
