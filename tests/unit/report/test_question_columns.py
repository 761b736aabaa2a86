"""The questions' columns against the files they come from, and a room against its store."""

import base64
import gzip
import json

import numpy as np
import pytest

from fixtures.html_tags import results as results  # a fixture
from fixtures.report_files import OTHER, SCENES, SETTINGS, SPLITS, TRUE
from threedrs.report.question_columns import Questions, question_text
from threedrs.report.results import Results
from threedrs.report.room_files import MOST_POINTS, pack_room, write_rooms
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import Record, conversation
from threedrs.tasks.registry import find_task
from threedrs.visualization.scene_view import SceneView


def unpack(text):
    return json.loads(gzip.decompress(base64.b64decode(text)))


@pytest.fixture(scope="module")
def questions(results):
    made = Results(folder=results, runs=SETTINGS.runs, benchmarks=SETTINGS.benchmarks, mix_names=())
    return Questions(made, "baseline")


def test_columns_hold_what_the_files_hold(questions, results):
    data = unpack(questions.packed())
    assert data["runs"] == ["3drs", "baseline"]
    assert [benchmark["name"] for benchmark in data["benchmarks"]] == list(SPLITS)
    for columns in data["benchmarks"]:
        name = columns["name"]
        for column, run in zip(columns["answers"], columns["runs"], strict=True):
            file = results / "eval" / data["runs"][run] / name / "predictions.jsonl"
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            assert columns["id"] == [row["id"] for row in rows]
            assert [data["scenes"][scene] for scene in columns["scene"]] == [
                row["scene"] for row in rows
            ]
            texts = [data["texts"][answer] for answer in column]
            if name != "scanrefer":
                assert texts == [row["prediction"] for row in rows]
                continue
            # The true box, or the other one, which does not touch it.
            of_run = columns["chosen"][columns["runs"].index(run)]
            for text, chosen, row, scene in zip(texts, of_run, rows, columns["scene"], strict=True):
                best = row["boxes"][int(np.argmax(row["scores"][:-1]))]
                assert [data["boxes"][scene][box] for box in chosen] == [
                    [round(number, 3) for number in best]
                ]
                assert text == f"1 box, IoU {float(best == row['gt'][0]):.2f}"
    scanrefer = data["benchmarks"][0]
    assert {data["texts"][text] for (text,) in scanrefer["truth"]} == {"1 box"}
    # The notice that counts where "no object" ranks first opens exactly these questions.
    for first, run in zip(scanrefer["no_object"], scanrefer["runs"], strict=True):
        folder = results / "eval" / data["runs"][run] / "scanrefer"
        rows = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
        assert first == [row["scores"][-1] > max(row["scores"][:-1]) for row in rows]
    # Two of three right, in tenths of a percent.
    assert scanrefer["values"][0] == [1000, 1000, 0] * 6
    assert {len(true) for true in scanrefer["true"]} == {1}


def test_counts_are_those_of_the_columns(questions):
    counts = {
        (one["benchmark"], one["run"]): (one["better"], one["same"], one["worse"])
        for one in questions.counts()
    }
    assert counts["sqa3d", "3drs"] == (6, 12, 0)
    assert counts["scanrefer", "3drs"] == (6, 12, 0)
    assert len(counts) == len(SPLITS)


@pytest.mark.parametrize(
    ("benchmark", "asked", "shown"),
    [
        ("scanqa", "<image> What is it? Answer the question simply.", "What is it?"),
        (
            "sqa3d",
            "<image> I sit. What is it? Answer the question using a single word or phrase.",
            "I sit. What is it?",
        ),
        ("scanqa", "<image> Another prompt", "Another prompt"),
        (
            "scan2cap",
            "<image> Given an object located at <coord> , describe the object in detail.",
            "Given an object located at the box, describe the object in detail.",
        ),
    ],
)
def test_a_question_is_shown_without_its_prompt(benchmark, asked, shown):
    record = Record(
        id="1", benchmark=benchmark, scene="scene0000_00", conversations=conversation(asked, "x")
    )
    assert question_text(record, find_task(benchmark)) == shown


def test_questions_about_boxes_differ_by_their_place():
    human = "<image> Given an object located at <coord> , describe the object in detail."
    record = Record(
        id="1",
        benchmark="scan2cap",
        scene="scene0000_00",
        conversations=conversation(human, "x"),
        box_input=[1.25, -0.5, 0.754, 0.1, 0.2, 0.3],
    )
    wanted = "Given an object located at (1.25, -0.50, 0.75) m, describe the object in detail."
    assert question_text(record, find_task("scan2cap")) == wanted


def test_a_room_is_its_store(questions, results):
    boxes = questions.boxes()[SCENES[0]]
    assert {tuple(box) for box in boxes.round(3)} == {tuple(TRUE), tuple(OTHER)}
    view = SceneView.of(SceneStore.open(results / "scenes" / f"{SCENES[0]}.zarr"))
    packed = pack_room(view, boxes)
    assert packed == pack_room(view, boxes)
    room = unpack(packed)
    places = np.frombuffer(base64.b64decode(room["points"]), "<u2").reshape(-1, 3)
    low, high = np.array(room["low"]), np.array(room["high"])
    points = low + places / 65535 * (high - low)
    assert 0 < len(points) <= MOST_POINTS
    # A wall 3 m ahead of the only camera, which stands at the origin.
    assert points[:, 2] == pytest.approx(3, abs=0.01)
    assert len(base64.b64decode(room["colours"])) == 3 * len(points)
    assert np.array(room["cameras"]).tolist() == [np.eye(4)[:3].tolist()]
    assert room["seen"] == [[100], [100]]
    assert room["frame_ids"] == [7]


def test_only_a_room_that_has_changed_is_written_again(questions, results, tmp_path, monkeypatch):
    boxes = {scene: np.array([TRUE]) for scene in SCENES[:3]}
    write_rooms(results / "scenes", boxes, tmp_path)
    first = {file.name: file.stat().st_ino for file in tmp_path.iterdir()}
    assert sorted(first) == [f"{scene}.js" for scene in SCENES[:3]]
    # Another box in one room, and a room less.
    boxes = {SCENES[0]: boxes[SCENES[0]], SCENES[1]: np.array([TRUE, OTHER])}
    write_rooms(results / "scenes", boxes, tmp_path)
    again = {file.name: file.stat().st_ino for file in tmp_path.iterdir()}
    assert sorted(again) == [f"{scene}.js" for scene in SCENES[:2]]
    same = [again[name] == first[name] for name in sorted(again)]
    assert same == [True, False]
    # Edited code, in all rooms.
    before = [(tmp_path / name).read_text().splitlines()[0] for name in again]
    monkeypatch.setattr("threedrs.report.room_files.code_hash", lambda *_: "edited")
    write_rooms(results / "scenes", boxes, tmp_path)
    heads = [(tmp_path / name).read_text().splitlines()[0] for name in again]
    assert not {*heads} & {*before}
    _, room = (tmp_path / f"{SCENES[1]}.js").read_text().splitlines()
    packed = room.removeprefix(f'threedrsRoom("{SCENES[1]}","').removesuffix('")')
    assert unpack(packed)["seen"] == [[100], [100]]
