"""Rows, options and files that the conversion rejects, each with its reason."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.instruction_files import (
    ANNOTATIONS,
    BOXES,
    GOOD,
    MULTI3DREFER,
    QUESTIONS,
    SCANQA,
    SCANREFER,
    SCENE,
    description,
    reasons,
    rejected,
    run,
    write_annotations,
)
from fixtures.instruction_files import write_sqa3d as write_sqa3d_files
from threedrs.errors import ConfigError, DataError
from threedrs.instructions.convert import convert
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.record import read_records


@pytest.mark.parametrize(
    ("path", "change", "reason", "detail"),
    [
        (SCANREFER, {"scene_id": "scene9999_00"}, "scene missing", "scene9999_00"),
        (SCANREFER, {"scene_id": "../../x"}, "malformed row", "is not a scene name: '../../x'"),
        (SCANREFER, {"object_id": "5"}, "object without a box", "object 5 of scene0000_00"),
        (
            SCANREFER,
            {"object_id": "five"},
            "malformed row",
            "object_id: 'five' is not of type 'integer'",
        ),
        (
            SCANREFER,
            {"object_id": True},
            "malformed row",
            "object_id: True is not of type 'integer'",
        ),
        (SCANREFER, {"object_id": "9" * 5000}, "malformed row", "object_id: '99999"),
        (SCANREFER, {"ann_id": None}, "malformed row", "ann_id: None is not of type 'integer'"),
        (SCANREFER, {"description": " \n"}, "empty text", "description: is empty"),
        (SCANREFER, {"description": 3}, "malformed row", "description: 3 is not of type 'string'"),
        (SCANREFER, {"description": "a \ud800"}, "malformed row", "half a surrogate pair"),
        (SCANREFER, {"object_name": ""}, "empty text", "object_name: is empty"),
        (MULTI3DREFER, {"object_ids": [1, 6]}, "object without a box", "object 6"),
        (MULTI3DREFER, {"object_ids": 1}, "malformed row", "object_ids: 1 is not of type 'array'"),
        (
            MULTI3DREFER,
            {"object_ids": [None]},
            "malformed row",
            "object_ids.0: None is not of type 'integer'",
        ),
        (
            MULTI3DREFER,
            {"eval_type": "st"},
            "malformed row",
            "choose one of: zt_w_d, zt_wo_d, st_w_d",
        ),
        (MULTI3DREFER, {"description": ""}, "empty text", "description: is empty"),
        (SCANQA, {"question": ""}, "empty text", "question: is empty"),
        (SCANQA, {"question": "What is at <coord>?"}, "malformed row", "question: holds <coord>"),
        (SCANREFER, {"description": "an <image>"}, "malformed row", "description: holds <image>"),
        (SCANQA, {"answers": []}, "empty text", "answers: [] should be non-empty"),
        (SCANQA, {"answers": ["a", ""]}, "empty text", "answers.1: is empty"),
        (SCANQA, {"answers": "a"}, "malformed row", "answers: 'a' is not of type 'array'"),
        (
            SCANQA,
            {"question_id": None},
            "malformed row",
            "question_id: None is not of type 'string'",
        ),
    ],
)
def test_row_is_rejected_with_its_reason(
    tmp_path: Path, path: str, change: dict[str, Any], reason: str, detail: str
) -> None:
    benchmark = path.split("/")[0]
    write_annotations(tmp_path, path, [GOOD[path], {**GOOD[path], **change}])
    records, summary = run(tmp_path, benchmark, "train")
    ((file, row, found, text),) = reasons(tmp_path, benchmark)
    assert (file, row, found) == (path, 1, reason)
    assert detail in text
    assert len(records) == 1
    assert (summary.rows, summary.rejected, summary.reasons) == (2, 1, {reason: 1})


@pytest.mark.parametrize("path", list(GOOD))
def test_every_field_is_needed(tmp_path: Path, path: str) -> None:
    needed = set(GOOD[path]) - {"token"}
    if path == MULTI3DREFER:
        needed -= {"ann_id"}
    rows = [
        {key: value for key, value in GOOD[path].items() if key != name} for name in sorted(needed)
    ]
    write_annotations(tmp_path, path, rows)
    records, _ = run(tmp_path, path.split("/")[0], "train")
    assert records == []
    assert [line[3] for line in reasons(tmp_path, path.split("/")[0])] == [
        f"{name!r} is a required property" for name in sorted(needed)
    ]


@pytest.mark.parametrize("row", [None, [], "text", 3])
def test_row_that_is_no_object(tmp_path: Path, row: Any) -> None:
    for path in GOOD:
        write_annotations(tmp_path, path, [row])
        records, _ = run(tmp_path, path.split("/")[0], "train")
        assert records == []
        assert reasons(tmp_path, path.split("/")[0]) == [
            (path, 0, "malformed row", f"{row!r} is not of type 'object'")
        ]


def test_scenes_of_the_other_list_are_rejected(tmp_path: Path) -> None:
    for split, scene in (("train", SCENE), ("val", "scene0001_00")):
        (tmp_path / "scannet/scans" / scene).mkdir(parents=True)
        (tmp_path / f"scannet/scannetv2_{split}.txt").write_text(f"{scene}\n")
    write_annotations(tmp_path, SCANQA, [GOOD[SCANQA], GOOD[SCANQA] | {"scene_id": "scene0001_00"}])
    records, summary = run(tmp_path, "scanqa", "train")
    assert [record.scene for record in records] == [SCENE]
    assert summary.reasons == {"scene missing": 1}
    assert "scene0001_00 has no scan or is not in scannetv2_train.txt" in str(
        reasons(tmp_path, "scanqa")
    )


def test_an_object_that_is_listed_twice_is_one_target(tmp_path: Path) -> None:
    write_annotations(tmp_path, MULTI3DREFER, [GOOD[MULTI3DREFER] | {"object_ids": [2, 1, 2]}])
    ((record,), _) = run(tmp_path, "multi3drefer", "train")
    assert record.object_ids == [2, 1]


NO_ANSWER = "question without an answer"


def test_sqa3d_rejects(tmp_path: Path) -> None:
    question = {
        "scene_id": SCENE,
        "situation": "I sit.",
        "alternative_situation": ["I rest."],
        "question": "What?",
    }
    questions = [
        {**question, "question_id": 1},
        {**question, "question_id": 2},
        {**question, "question_id": 3},
        {**question, "question_id": 4, "alternative_situation": ["ok", " "]},
        {**question, "question_id": 5},
    ]
    answers = [
        {"question_id": 3, "answers": []},
        {"question_id": 1, "answers": [{"answer": "b"}]},
        {"question_id": 1, "answers": [{"answer": "c"}]},
        {"question_id": 4, "answers": [{"answer": "b"}]},
        {"question_id": 9, "answers": [{"answer": "b"}]},
        {"question_id": 5, "answers": ["b"]},
        7,
    ]
    write_sqa3d_files(tmp_path, "train", questions, answers)
    records, summary = run(tmp_path, "sqa3d", "train", max_reject_fraction=1.0)
    assert [(record.id, record.answer) for record in records] == [
        ("1", "b"),
        ("1#2", "b"),
    ]
    assert reasons(tmp_path, "sqa3d") == [
        (QUESTIONS, 1, NO_ANSWER, "the annotations have none to question 2"),
        (QUESTIONS, 2, NO_ANSWER, "the annotations have none to question 3"),
        (QUESTIONS, 3, "empty text", "alternative_situation.1: is empty"),
        (QUESTIONS, 4, NO_ANSWER, "the annotations have none to question 5"),
        (ANNOTATIONS, 0, "empty text", "answers: [] should be non-empty"),
        (ANNOTATIONS, 2, "malformed row", "question 1 is answered twice"),
        (ANNOTATIONS, 4, "answer without a question", "question 9 is not among the questions"),
        (ANNOTATIONS, 5, "malformed row", "answers.0: 'b' is not of type 'object'"),
        (ANNOTATIONS, 6, "malformed row", "7 is not of type 'object'"),
    ]
    assert summary.reasons == {
        "answer without a question": 1,
        "empty text": 2,
        "malformed row": 3,
        NO_ANSWER: 3,
    }


def test_scan2cap_evaluation_rejects_every_row_of_an_object_without_a_box(tmp_path: Path) -> None:
    rows = [
        description(5, 0, "a"),
        description(1, 0, "b"),
        description(5, 1, "c"),
        description(1, 1, ""),
    ]
    write_annotations(tmp_path, "scanrefer/ScanRefer_filtered_val.json", rows)
    records, _ = run(tmp_path, "scan2cap", "val")
    assert [(record.object_ids, record.references) for record in records] == [([1], ["b"])]
    assert [line[1:3] for line in reasons(tmp_path, "scan2cap", "val")] == [
        (0, "object without a box"),
        (2, "object without a box"),
        (3, "empty text"),
    ]


def test_scenes_without_scan_or_outside_the_lists_are_missing(tmp_path: Path) -> None:
    rows = [
        {**GOOD[SCANQA], "scene_id": f"scene000{n}_00", "question_id": str(n)} for n in range(3)
    ]
    write_annotations(tmp_path, SCANQA, rows)

    def scenes(boxes: Any) -> str:
        """The numbers of the scenes that have a record."""
        out = tmp_path / "out/scanqa_train.jsonl"
        layout = DataLayout(root=tmp_path)
        convert("scanqa", "train", layout, boxes, out, max_reject_fraction=1.0)
        return "".join(record.scene[8] for record in read_records(out))

    assert scenes(None) == scenes(BOXES) == "012"  # only annotation files: no check
    for n in range(2):
        (tmp_path / f"scannet/scans/scene000{n}_00").mkdir(parents=True)
    # Boxes that are given may be of scenes without a scan.
    assert (scenes(None), scenes(BOXES)) == ("01", "012")
    (tmp_path / "scannet/scannetv2_train.txt").write_text("scene0001_00\nscene0002_00\n")
    assert (scenes(BOXES), scenes(None)) == ("12", "1")
    assert [line[1:3] for line in reasons(tmp_path, "scanqa")] == [
        (0, "scene missing"),
        (2, "scene missing"),
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_too_many_rejects_stop(tmp_path: Path, split: str) -> None:
    file = f"scanrefer/ScanRefer_filtered_{split}.json"
    write_annotations(tmp_path, file, [description(1, n, "a" * (n % 4)) for n in range(8)])
    with pytest.raises(DataError) as error:
        run(tmp_path, "scanrefer", split, max_reject_fraction=0.2)
    assert "2 rows rejected of 8, more than max_reject_fraction 0.2" in str(error.value)
    assert str(error.value).endswith("e.g. row 0: empty text (description: is empty)")
    assert len(rejected(tmp_path, "scanrefer", split)) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [
        f"scanrefer_{split}.rejected.jsonl"
    ]
    records, _ = run(tmp_path, "scanrefer", split, max_reject_fraction=0.25)
    assert len(records) == 6


def test_on_reject_fail_stops_at_the_first(tmp_path: Path) -> None:
    write_annotations(tmp_path, SCANREFER, [GOOD[SCANREFER], description(1, 1, "")])
    with pytest.raises(DataError, match=r"train.json: row 1: empty text \(description: is empty\)"):
        run(tmp_path, "scanrefer", "train", on_reject="fail")
    assert not (tmp_path / "out").exists()


def test_the_first_answer_without_a_question_is_named(tmp_path: Path) -> None:
    answers = [{"question_id": f"q{n}", "answers": [{"answer": "b"}]} for n in range(20)]
    question = {"scene_id": SCENE, "question_id": "q0", "situation": "I sit.", "question": "What?"}
    write_sqa3d_files(tmp_path, "val", [question], answers)
    with pytest.raises(DataError, match=r"row 1: answer without a question \(question q1 is not"):
        run(tmp_path, "sqa3d", "val", on_reject="fail")


def test_unknown_benchmark_and_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown benchmark 'scanref'; choose one of: scanrefer"):
        run(tmp_path, "scanref", "train")
    with pytest.raises(ConfigError, match=r"scanqa has no split 'test'; choose one of: train, val"):
        run(tmp_path, "scanqa", "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON list of annotations; copy"),
        ("{}", "expected a JSON list of annotations"),
        ("[{", "is not valid JSON (Expecting"),
        ("", "is not valid JSON"),
    ],
)
def test_wrong_list_file(tmp_path: Path, text: str, message: str) -> None:
    path = write_annotations(tmp_path, SCANQA, text)
    with pytest.raises(DataError) as error:
        run(tmp_path, "scanqa", "train")
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


LISTED = "expected a JSON list of annotations under 'questions'; copy the file again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", LISTED),
        ('{"question": []}', LISTED),
        ('{"questions": {}}', LISTED),
        ('{"questions": []}', LISTED),
    ],
)
def test_wrong_sqa3d_file(tmp_path: Path, text: str, message: str) -> None:
    path = write_annotations(tmp_path, QUESTIONS, text)
    with pytest.raises(DataError) as error:
        run(tmp_path, "sqa3d", "train")
    assert str(error.value) == f"{path}: {message}"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ScanQA_v1.0_train.json: cannot be read"):
        run(tmp_path, "scanqa", "train")
