"""Each benchmark's converter on a few rows, with expectations worked by hand from the spec."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.instruction_files import (
    OTHER_SCENE,
    SCENE,
    description,
    run,
    write_annotations,
    write_sqa3d,
)
from fixtures.real_data import shipped_and_whole
from fixtures.repository import ROOT
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.sqa3d import question_type

GOLDEN = json.loads((ROOT / "tests" / "golden" / "prompts.json").read_text(encoding="utf-8"))
TEXT = "the brown chair. It is next to the TV."
SCANREFER = "scanrefer/ScanRefer_filtered_{}.json"


def scanqa_row(question_id: str, answers: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "scene_id": SCENE,
        "question_id": question_id,
        "question": "What color is the TV?",
        "answers": answers,
        "object_ids": [1],
        "object_names": ["tv"],
        **changes,
    }


def sqa3d_question(question_id: int, situations: list[str], question: str) -> dict[str, Any]:
    *alternatives, situation = situations
    return {
        "scene_id": SCENE,
        "situation": situation,
        "alternative_situation": alternatives,
        "question": question,
        "question_id": question_id,
    }


def sqa3d_answer(question_id: int, answer: str) -> dict[str, Any]:
    answers = [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}]
    return {"scene_id": SCENE, "question_id": question_id, "answers": answers}


@pytest.mark.parametrize("benchmark", list(GOLDEN))
def test_prompt_and_answer_to_the_character(tmp_path: Path, benchmark: str) -> None:
    situation, question = "I am sitting at the desk, facing the TV.", "What is on my left?"
    write_annotations(tmp_path, SCANREFER.format("train"), [description(1, 0, TEXT)])
    write_annotations(
        tmp_path,
        "multi3drefer/multi3drefer_train.json",
        [{"scene_id": SCENE, "object_ids": [1], "eval_type": "mt", "description": TEXT}],
    )
    write_annotations(
        tmp_path, "scanqa/ScanQA_v1.0_train.json", [scanqa_row("train-0", ["Dark brown"])]
    )
    write_sqa3d(
        tmp_path, "train", [sqa3d_question(9, [situation], question)], [sqa3d_answer(9, "Chair")]
    )
    (record,), _ = run(tmp_path, benchmark, "train")
    assert record.to_json()["conversations"] == [
        {"from": "human", "value": GOLDEN[benchmark]["human"]},
        {"from": "gpt", "value": GOLDEN[benchmark]["answer"]},
    ]


def test_scanrefer(tmp_path: Path) -> None:
    rows = [
        description(1, 0, "a"),
        description(2, 0, "b", object_name="armchair"),  # also a chair (5): both are multiple
        description(1, 1, "c"),  # the same object again counts once
        description(7, 0, "d", object_name="desk"),
        description(1, 0, "e", scene_id=OTHER_SCENE),  # the only chair of its scene
    ]
    write_annotations(tmp_path, SCANREFER.format("val"), rows)
    records, summary = run(tmp_path, "scanrefer", "val")
    assert [(record.id, record.question_type, record.object_ids) for record in records] == [
        ("0", "multiple", [1]),
        ("1", "multiple", [2]),
        ("2", "multiple", [1]),
        ("3", "unique", [7]),
        ("4", "unique", [1]),
    ]
    assert [record.ann_id for record in records] == [0, 0, 1, 0, 0]
    assert records[3].box == [6, 0, 0.1, 2, 2, 2]  # shortest decimals of the float32 values
    assert all(record.box_input is None and record.references is None for record in records)
    assert (summary.rows, summary.records, summary.rejected) == (5, 5, 0)


def test_scanrefer_other_furniture_is_one_class(tmp_path: Path) -> None:
    """A name that the table lacks and a class outside the 20 are both 39."""
    rows = [
        description(1, 0, "a", object_name="gizmo"),
        description(2, 0, "b", object_name="book"),
        description(7, 0, "c", object_name="desk"),
    ]
    write_annotations(tmp_path, SCANREFER.format("train"), rows)
    records, _ = run(tmp_path, "scanrefer", "train")
    assert [record.question_type for record in records] == ["multiple", "multiple", "unique"]


@pytest.mark.parametrize("benchmark", ["scanrefer", "scan2cap"])
def test_types_that_a_published_converter_has_written_need_no_label_table(
    tmp_path: Path, benchmark: str
) -> None:
    rows = [
        description(1, 0, "a", eval_type="unique"),
        description(2, 0, "b", eval_type="multiple"),
    ]
    write_annotations(tmp_path, SCANREFER.format("train"), rows)
    DataLayout(root=tmp_path).labels_file.unlink()
    records, _ = run(tmp_path, benchmark, "train")
    assert [record.question_type for record in records] == ["unique", "multiple"]


def test_multi3drefer(tmp_path: Path) -> None:
    base = {"scene_id": SCENE, "description": "x", "object_name": "chair"}
    rows = [
        {**base, "object_ids": [], "ann_id": 4, "eval_type": "zt_w_d"},
        {**base, "object_ids": [7, 1], "ann_id": 5, "eval_type": "mt"},
        {**base, "object_ids": [2], "ann_id": "6", "eval_type": "st_wo_d"},
    ]
    write_annotations(tmp_path, "multi3drefer/multi3drefer_val.json", rows)
    records, _ = run(tmp_path, "multi3drefer", "val")
    assert [(record.id, record.question_type, record.object_ids) for record in records] == [
        ("0", "zt_w_d", []),
        ("1", "mt", [7, 1]),
        ("2", "st_wo_d", [2]),
    ]
    assert [record.ann_id for record in records] == [4, 5, 6]
    assert [record.box for record in records] == [
        [],
        [[6, 0, 0.1, 2, 2, 2], [0, 0, 0, 1, 1, 1]],
        [[3, 0, 0, 2, 1, 1]],
    ]


def test_scan2cap_training(tmp_path: Path) -> None:
    rows = [description(1, 0, "a CHAIR"), description(1, 1, "b"), description(7, 0, "c")]
    write_annotations(tmp_path, SCANREFER.format("train"), rows)
    records, _ = run(tmp_path, "scan2cap", "train")
    assert [(record.id, record.answer, record.box_input) for record in records] == [
        ("0", "A chair", [0, 0, 0, 1, 1, 1]),
        ("1", "B", [0, 0, 0, 1, 1, 1]),
        ("2", "C", [6, 0, 0.1, 2, 2, 2]),
    ]
    assert all(record.references is None for record in records)


def test_scan2cap_evaluation(tmp_path: Path) -> None:
    rows = [
        description(1, 0, "First words."),
        description(2, 0, "b"),
        description(1, 1, "second Words"),
        description(1, 2, "c", object_name="armchair"),  # another name is another key
        description(1, 0, "d", scene_id=OTHER_SCENE),
    ]
    write_annotations(tmp_path, SCANREFER.format("val"), rows)
    records, summary = run(tmp_path, "scan2cap", "val")
    assert [(record.id, record.references) for record in records] == [
        ("0", ["First words.", "second Words"]),
        ("1", ["b"]),
        ("3", ["c"]),
        ("4", ["d"]),
    ]
    assert records[0].answer == "First words."
    # Both chairs of the first scene, and the only one of the other.
    types = [record.question_type for record in records]
    assert types == ["multiple", "multiple", "multiple", "unique"]
    # Object 1: IoU 0.8 beats 0.5. Object 2: 1.3 / 2.7 = 0.48 is too little. No proposal: none.
    assert [record.box_input for record in records] == [
        [0, 0, 0, 0.8, 1, 1],
        None,
        [0, 0, 0, 0.8, 1, 1],
        None,
    ]
    assert (summary.rows, summary.records, summary.rejected) == (5, 4, 0)


def test_scanqa(tmp_path: Path) -> None:
    rows = [scanqa_row("q-0", ["Dark brown", "brown"]), scanqa_row("q-1", ["2"])]
    for split in ("train", "val"):
        write_annotations(tmp_path, f"scanqa/ScanQA_v1.0_{split}.json", rows)
    training, _ = run(tmp_path, "scanqa", "train")
    assert [(record.id, record.answer, record.references) for record in training] == [
        ("scanqa_q-0_0", "Dark brown", None),
        ("scanqa_q-0_1", "brown", None),
        ("scanqa_q-1_0", "2", None),
    ]
    evaluation, _ = run(tmp_path, "scanqa", "val")
    assert [(record.id, record.answer, record.references) for record in evaluation] == [
        ("scanqa_q-0_0", "Dark brown", ["Dark brown", "brown"]),
        ("scanqa_q-1_0", "2", ["2"]),
    ]
    assert all(record.object_ids is None for record in training + evaluation)


def test_sqa3d_training_takes_alternatives_first(tmp_path: Path) -> None:
    questions = [
        sqa3d_question(31, ["Alternative A.", "Alternative B.", "Original."], "Can I sit?"),
        sqa3d_question(32, ["Only."], "Where is it?"),
    ]
    # The two files are matched by question, not by place.
    write_sqa3d(tmp_path, "train", questions, [sqa3d_answer(32, "desk"), sqa3d_answer(31, "yes")])
    records, summary = run(tmp_path, "sqa3d", "train")
    end = "Answer the question using a single word or phrase."
    assert [(record.id, record.human, record.answer) for record in records] == [
        ("31", f"<image> Alternative A. Can I sit? {end}", "yes"),
        ("31#2", f"<image> Alternative B. Can I sit? {end}", "yes"),
        ("31#3", f"<image> Original. Can I sit? {end}", "yes"),
        ("32", f"<image> Only. Where is it? {end}", "desk"),
    ]
    assert [record.question_type for record in records] == ["can", "can", "can", "others"]
    assert (summary.rows, summary.records) == (2, 4)


@pytest.mark.parametrize("split", ["val", "test"])
def test_sqa3d_evaluation_takes_the_original(tmp_path: Path, split: str) -> None:
    questions = [sqa3d_question(31, ["Alternative.", "Original."], "Is it big?")]
    write_sqa3d(tmp_path, split, questions, [sqa3d_answer(31, "no")])
    (record,), _ = run(tmp_path, "sqa3d", split)
    assert record.id == "31"
    assert record.human.startswith("<image> Original. Is it big?")
    assert record.references == ["no"]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is this?", "what"),
        ("what's left?", "what"),
        ("IS it?", "is"),
        ("Isn't it?", "is"),
        ("How many?", "how"),
        ("Can I?", "can"),
        ("Can't I?", "can"),
        ("Which one?", "which"),
        ("Are there?", "others"),
        ("Does what is left move?", "others"),
        ("If I turn, what is left?", "others"),
    ],
)
def test_sqa3d_question_type(question: str, kind: str) -> None:
    assert question_type(question) == kind


# Question types: of the shipped hundred, counted from their first words; of the whole split, the
# sizes that papers report.
TYPES = {
    100: {"what": 35, "is": 15, "how": 14, "can": 7, "which": 15, "others": 14},
    3519: {"what": 1147, "is": 652, "how": 465, "can": 338, "which": 351, "others": 566},
}


@pytest.mark.parametrize(("source", "rows"), shipped_and_whole("sqa3d", 100, 3519))
def test_published_sqa3d_questions(tmp_path: Path, source: Path, rows: int) -> None:
    folder = tmp_path / "benchmark" / "sqa_task" / "balanced"
    folder.mkdir(parents=True)
    for path in source.glob("*.json"):
        (folder / path.name).symlink_to(path)
    records, summary = run(tmp_path, "sqa3d", "test", max_reject_fraction=0.0)
    assert (summary.rows, summary.records, summary.rejected) == (rows, rows, 0)
    # A part of the split has no published size to be compared with.
    assert summary.published_records == (3519 if rows == 3519 else None)
    assert summary.repeated_ids == 0
    kinds = [record.question_type for record in records]
    sizes = {kind: kinds.count(kind) for kind in set(kinds)}
    assert sizes == TYPES[rows]
    assert records[0].human == (
        "<image> I am standing by the ottoman on my right facing a couple of toolboxes. "
        "What instrument in front of me is ebony and ivory? "
        "Answer the question using a single word or phrase."
    )
    assert records[0].references == ["piano"]
