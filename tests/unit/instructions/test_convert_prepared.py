"""Processed files that users have already: LLaVA-style arrays, ready box files."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.instruction_files import BOXES, description, write_annotations
from fixtures.instruction_files import run as converted
from fixtures.mix_records import record
from threedrs.errors import DataError
from threedrs.instructions.convert import ConversionSummary, take_prepared
from threedrs.instructions.llava_format import write_llava
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.record import read_records

SCENES = frozenset({"scene0000_00", "scene0001_00"})
BOX = [0.5, 0.25, 1.0, 1.0, 2.0, 0.5]


def take(folder: Path, benchmark: str, split: str, **options: Any) -> ConversionSummary:
    """Take a benchmark of ``all.json``, with the boxes of the converters' tests."""
    out, layout = folder / f"{benchmark}_{split}.jsonl", DataLayout(root=folder)
    return take_prepared(
        benchmark, split, folder / "all.json", layout, SCENES, BOXES, out, **options
    )


def rejections(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.rejected.jsonl").open()]


def test_one_benchmark_of_an_array(tmp_path: Path) -> None:
    refer = [record("scanrefer", n, "<ground>", object_ids=[n], box=BOX) for n in (1, 2)]
    answers = [record("scanqa", 0), record("scanqa", 1, scene="scene0707_00")]
    write_llava(tmp_path / "all.json", [*refer, *answers])
    summary = take(tmp_path, "scanqa", "train", max_reject_fraction=0.5)
    assert list(read_records(tmp_path / "scanqa_train.jsonl")) == answers[:1]
    assert (summary.rows, summary.records, summary.rejected) == (2, 1, 1)
    assert summary.reasons == {"scene missing": 1}
    (rejected,) = rejections(tmp_path, "scanqa_train")
    assert (rejected["file"], rejected["row"]) == ("all.json", 3)
    assert rejected["detail"] == "scanqa_1: scene0707_00 is not in the split's scene list"
    assert json.loads((tmp_path / "scanqa_train.summary.json").read_text())["records"] == 1
    take(tmp_path, "scanrefer", "train")
    assert list(read_records(tmp_path / "scanrefer_train.jsonl")) == refer


@pytest.mark.parametrize(
    ("benchmark", "object_ids", "reason", "detail"),
    [
        ("scanrefer", [9999], "object without a box", "object 9999 of scene0000_00 has no ground"),
        ("scanrefer", [], "malformed row", "scanrefer_1: names 0 objects, expected one"),
        ("multi3drefer", [1, 9999], "object without a box", "object 9999 of scene0000_00"),
        ("scan2cap", [9999], "object without a box", "object 9999 of scene0000_00"),
        ("scan2cap", [1, 2], "malformed row", "scan2cap_1: names 2 objects, expected one"),
    ],
)
def test_entries_of_objects_without_a_box_are_rejected(
    tmp_path: Path, benchmark: str, object_ids: list[int], reason: str, detail: str
) -> None:
    kept = record(benchmark, 0, object_ids=[1], box_input=BOX)
    wrong = record(benchmark, 1, object_ids=object_ids, box_input=BOX)
    write_llava(tmp_path / "all.json", [record("scanqa", 0), kept, wrong])
    array = json.loads((tmp_path / "all.json").read_text())
    array[2]["metadata"]["object_id"] = object_ids  # the writer names the first alone
    (tmp_path / "all.json").write_text(json.dumps(array))
    summary = take(tmp_path, benchmark, "train", max_reject_fraction=0.5)
    assert (summary.records, summary.reasons) == (1, {reason: 1})
    (rejected,) = rejections(tmp_path, f"{benchmark}_train")
    assert (rejected["row"], rejected["reason"]) == (2, reason)
    assert detail in rejected["detail"]
    with pytest.raises(DataError, match=f"all.json: row 2: {reason} .*on_reject to report"):
        take(tmp_path, benchmark, "train", on_reject="fail")
    with pytest.raises(DataError, match=f"1 row rejected of 2, .* row 2: {reason}"):
        take(tmp_path, benchmark, "train")


def test_entries_without_a_box_are_rejected_as_the_converters_do(tmp_path: Path) -> None:
    file = "scanrefer/ScanRefer_filtered_train.json"
    write_annotations(tmp_path, file, [description(1, 0, "a"), description(9999, 0, "b")])
    _, summary = converted(tmp_path, "scanrefer", "train")
    entries = [record("scanrefer", n, object_ids=[n]) for n in (1, 9999)]
    write_llava(tmp_path / "all.json", entries)
    assert take(tmp_path, "scanrefer", "train", max_reject_fraction=1).reasons == summary.reasons
    (mine,), (theirs,) = (
        rejections(folder, "scanrefer_train") for folder in (tmp_path, tmp_path / "out")
    )
    assert {**mine, "file": file} == theirs


def test_entries_of_scenes_left_out_stop_nothing(tmp_path: Path) -> None:
    write_llava(tmp_path / "all.json", [record("scanrefer", n, object_ids=[n]) for n in (1, 9999)])
    summary = take(
        tmp_path, "scanrefer", "train", on_reject="fail", left_out={"scene0000_00": "no mesh"}
    )
    assert (summary.records, summary.left_out) == (0, {"scene0000_00": 2})
    assert summary.reasons == {"scene left out": 2}


@pytest.mark.parametrize(
    ("records", "split", "message"),
    [
        ([record("sqa3d", 0)], "train", "holds no entries of scanqa"),
        ([record("scanqa", 0)], "val", "scanqa_0 has no references"),
        ([record("scanqa", 0, references=["yes"])], "train", "has references: an evaluation"),
        ([record("scanqa", 0, scene="scene0707_00")], "train", "1 row rejected of 1"),
    ],
)
def test_refused_arrays(tmp_path: Path, records: list[Any], split: str, message: str) -> None:
    write_llava(tmp_path / "all.json", records)
    with pytest.raises(DataError) as error:
        take(tmp_path, "scanqa", split)
    assert message in str(error.value)
    assert not (tmp_path / f"scanqa_{split}.jsonl").exists()


def test_captions_need_no_true_box_where_they_are_evaluated(tmp_path: Path) -> None:
    """The start check asks for no ground truth either (`required_files.box_needs`)."""
    asked = [
        record(name, 0, answer, object_ids=[9999], box=BOX, box_input=given, references=["a"])
        for name, answer, given in (("scan2cap", "A", BOX), ("scanrefer", "<ground>", None))
    ]
    write_llava(tmp_path / "all.json", asked)
    assert take(tmp_path, "scan2cap", "val").records == 1
    assert take(tmp_path, "scanrefer", "val", max_reject_fraction=1).reasons == {
        "object without a box": 1
    }


def test_repeated_ids_of_an_array_are_counted(tmp_path: Path) -> None:
    write_llava(tmp_path / "all.json", [record("sqa3d", 7)] * 3 + [record("scanqa", 7)])
    assert take(tmp_path, "sqa3d", "train").repeated_ids == 2
    ids = [found.id for found in read_records(tmp_path / "sqa3d_train.jsonl")]
    assert ids == ["sqa3d_7", "sqa3d_7#2", "sqa3d_7#3"]


@pytest.mark.parametrize("answers", [["four"], ["four", "4"]])
def test_questions_with_one_true_answer_each_are_warned_about(
    tmp_path: Path, answers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    questions = [record("scanqa", 0, references=["a"]), record("scanqa", 1, references=answers)]
    write_llava(tmp_path / "all.json", questions)
    take(tmp_path, "scanqa", "val")
    warned = "no question of ScanQA holds more than one true answer" in caplog.text
    assert warned == (len(answers) == 1)
