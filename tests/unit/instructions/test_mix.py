"""The training mix: order, refusals, the three files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.mix_records import record
from threedrs.errors import DataError
from threedrs.instructions.llava_format import write_llava
from threedrs.instructions.mix import build_mix
from threedrs.instructions.mix_settings import MixSettings
from threedrs.tasks.record import Record, read_records, write_records

BOX = [0.5, 0.25, 1.0, 1.0, 2.0, 0.5]


def mix(
    folder: Path, *files: list[Record], held_out: Sequence[str] = (), **settings: Any
) -> dict[str, Any]:
    paths = []
    for number, records in enumerate(files):
        paths.append(folder / f"{number}.jsonl")
        write_records(paths[-1], records)
    return build(paths, folder / "mixes", held_out, **settings)


def build(
    paths: list[Path],
    folder: Path,
    held_out: Sequence[str] = (),
    left_out: Mapping[str, str] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    return build_mix(
        paths,
        MixSettings(**{"balance": "all", **settings}),
        held_out_scenes=held_out,
        out_jsonl=folder / "full.jsonl",
        out_summary=folder / "full.summary.json",
        left_out=left_out,
    )


def test_all_holds_every_record_once_in_benchmark_order(tmp_path: Path) -> None:
    refer = [record("scanrefer", n, "<ground>", object_ids=[n], box=BOX) for n in range(2)]
    multi = [record("multi3drefer", 0, "<ground>", object_ids=[])]
    caption = [record("scan2cap", 0, "A chair.", box_input=BOX)]
    answers = [record("scanqa", 0), record("sqa3d", 1), record("scanqa", 2)]
    mix(tmp_path, answers, caption, refer, multi)
    expected = [*refer, *multi, *caption, answers[0], answers[2], answers[1]]
    assert list(read_records(tmp_path / "mixes" / "full.jsonl")) == expected


def test_records_of_scenes_that_cannot_be_used_stay_out(tmp_path: Path) -> None:
    records = [record("scanqa", n, scene=f"scene000{n % 2}_00") for n in range(5)]
    path = tmp_path / "scanqa_train.jsonl"
    write_records(path, records)
    (tmp_path / "scanqa_train.summary.json").write_text('{"left_out": {"scene0007_00": 3}}')
    left_out = {"scene0001_00": "it is truncated", "scene0007_00": "of another mesh"}
    summary = build([path], tmp_path / "mixes", left_out=left_out)
    mixed = list(read_records(tmp_path / "mixes" / "full.jsonl"))
    assert mixed == [records[0], records[2], records[4]]
    assert summary["samples"] == summary["before"]["samples"] == 3
    assert summary["sources"]["scanqa"]["available"] == 3
    assert summary["left_out"] == {
        "records": 5,
        "scenes": [
            {"scene": "scene0001_00", "reason": "it is truncated", "records": 2},
            {"scene": "scene0007_00", "reason": "of another mesh", "records": 3},
        ],
    }
    left_out["scene0000_00"] = "no pose"
    with pytest.raises(DataError, match="no record: all are of scenes that are left out"):
        build([path], tmp_path / "mixes", left_out=left_out)


def test_only_records_whose_question_or_answer_matches_are_drawn(tmp_path: Path) -> None:
    asked = [record("scanqa", 0, "a red chair"), record("scanqa", 1, "redder"), record("sqa3d", 2)]
    summary = mix(tmp_path, asked, matching=r"\bred\b")
    assert list(read_records(tmp_path / "mixes" / "full.jsonl")) == asked[:1]
    assert (summary["matching"], summary["before"]["samples"]) == (r"\bred\b", 3)
    mix(tmp_path, asked, matching=r"(?s)\A(?!.*\bred\b)")
    assert list(read_records(tmp_path / "mixes" / "full.jsonl")) == asked[1:]
    summary = mix(
        tmp_path, asked, matching="Is it", balance="weights", weights={"sqa3d": 1}, size=2
    )
    assert summary["benchmarks"] == {"sqa3d": 2}
    with pytest.raises(DataError, match="no record that matches 'blue'"):
        mix(tmp_path, asked, matching="blue")


def test_summary(tmp_path: Path) -> None:
    scenes = ["scene0000_00"] * 3 + ["scene0001_00"]
    records = [
        record("scanqa", 0, "yes", scene=scenes[0]),
        record("scanqa", 1, "two words", scene=scenes[1]),
        record("scanqa", 2, "yes", scene=scenes[2]),
        record("sqa3d", 3, "no", scene=scenes[3], question_type="is"),
    ]
    summary = mix(tmp_path, records)
    assert json.loads((tmp_path / "mixes" / "full.summary.json").read_text()) == summary
    (source,) = summary.pop("inputs")
    assert source["file"] == "0.jsonl"
    assert len(source["sha256"]) == 64
    assert summary.pop("format_version") == 1
    assert summary.pop("balance") == "all"
    assert (summary.pop("seed"), summary.pop("caps")) == (0, {})
    assert summary.pop("repeats") == 0
    assert summary.pop("left_out") == {"records": 0, "scenes": []}
    assert summary.pop("sources") == {
        "scanqa": {"available": 3, "requested": 3, "drawn": 3, "repeats": 0},
        "sqa3d": {"available": 1, "requested": 1, "drawn": 1, "repeats": 0},
    }
    assert summary.pop("before") == summary
    assert summary == {
        "samples": 4,
        "benchmarks": {"scanqa": 3, "sqa3d": 1},
        "question_types": {"scanqa": {"none": 3}, "sqa3d": {"is": 1}},
        "scenes": 2,
        "samples_per_scene": {
            "mean": 2.0,
            "minimum": 1.0,
            "quartile1": 1.5,
            "median": 2.0,
            "quartile3": 2.5,
            "maximum": 3.0,
        },
        "answer_words": {
            "scanqa": {
                "mean": pytest.approx(4 / 3),
                "minimum": 1.0,
                "quartile1": 1.0,
                "median": 1.0,
                "quartile3": 1.5,
                "maximum": 2.0,
            },
            "sqa3d": dict.fromkeys(
                ("mean", "minimum", "quartile1", "median", "quartile3", "maximum"), 1.0
            ),
        },
        "top_answers": {
            "scanqa": [{"answer": "yes", "samples": 2}, {"answer": "two words", "samples": 1}],
            "sqa3d": [{"answer": "no", "samples": 1}],
        },
    }


def test_llava_arrays_mix_too(tmp_path: Path) -> None:
    records = [record("scanqa", 0), record("scanrefer", 1, "<ground>", object_ids=[1])]
    write_llava(tmp_path / "others.json", records)
    build([tmp_path / "others.json"], tmp_path / "mixes")
    assert list(read_records(tmp_path / "mixes" / "full.jsonl")) == records[::-1]


def test_balanced_mix_and_its_summary(tmp_path: Path) -> None:
    answers = [record("scanqa", n, "yes" if n % 2 else f"answer {n}") for n in range(40)]
    boxes = [record("scanrefer", n, "<ground>", object_ids=[n], box=BOX) for n in range(4)]
    summary = mix(
        tmp_path, answers, boxes, balance="weights", weights={"scanqa": 1, "scanrefer": 3}, size=20
    )
    assert summary["benchmarks"] == {"scanrefer": 15, "scanqa": 5}
    assert summary["before"]["benchmarks"] == {"scanrefer": 4, "scanqa": 40}
    assert summary["repeats"] == summary["sources"]["scanrefer"]["repeats"] == 11
    assert summary["sources"]["scanrefer"] == {
        "available": 4,
        "requested": 15,
        "drawn": 15,
        "repeats": 11,
    }


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [record("scanqa", 0), record("scanqa", 1, references=["yes"])],
            "scanqa_1 is a question of an evaluation split",
        ),
        (
            [record("scanrefer", 5, scene="scene0011_00")],
            "scanrefer_5 is of scene0011_00, a held-out scene",
        ),
        ([record("scanqa", 0), record("scanqa", 0)], "scanqa_0 stands twice in the mix"),
        ([record("nr3d", 0)], "nr3d_0: no benchmark 'nr3d'; known are scanrefer, multi3drefer"),
        ([], "the training mix has no record"),
    ],
)
def test_refusals(tmp_path: Path, records: list[Record], message: str) -> None:
    with pytest.raises(DataError) as error:
        mix(tmp_path, records, held_out=["scene0011_00"])
    assert message in str(error.value)
    assert not (tmp_path / "mixes").exists()
