"""The field's own JSON array: what is exported, and what others' files may look like."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.instruction_files import SCENE, description, run, write_annotations
from threedrs.errors import DataError
from threedrs.instructions.llava_format import load_records, read_llava, write_llava
from threedrs.tasks.record import Record, conversation, write_records


def entry(dataset: str, **changes: Any) -> dict[str, Any]:
    """An entry as others write it."""
    return {
        "id": 0,
        "video": f"scannet/{SCENE}",
        "conversations": conversation("<image> Find it.", "Here."),
        "metadata": {"dataset": dataset, "question_type": None, "ann_id": 4, "object_id": 3},
        **changes,
    }


def read(folder: Path, *entries: Any) -> list[Record]:
    path = folder / "others.json"
    path.write_text(json.dumps(list(entries)))
    return read_llava(path)


def test_entry_is_as_specified(tmp_path: Path) -> None:
    write_annotations(
        tmp_path, "scanrefer/ScanRefer_filtered_train.json", [description(1, 5, "a chair")]
    )
    write_llava(tmp_path / "out.json", run(tmp_path, "scanrefer", "train")[0])
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {
            "id": "scanrefer_scene0000_00_1_5",
            "video": "scannet/scene0000_00",
            "conversations": [
                {
                    "from": "human",
                    "value": "<image>Identify the object according to the following description."
                    "\nA chair",
                },
                {"from": "gpt", "value": "<ground>"},
            ],
            "metadata": {
                "dataset": "scanrefer",
                "question_type": "unique",
                "ann_id": 5,
                "object_id": 1,
            },
            "box": [0, 0, 0, 1, 1, 1],
        }
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_converted_records_come_back(tmp_path: Path, split: str) -> None:
    write_annotations(
        tmp_path,
        f"scanrefer/ScanRefer_filtered_{split}.json",
        [description(1, 0, "a"), description(2, 3, "é\u2028")],
    )
    base = {"scene_id": SCENE, "description": "x", "ann_id": 2, "eval_type": "mt"}
    write_annotations(
        tmp_path,
        f"multi3drefer/multi3drefer_{split}.json",
        [{**base, "object_ids": ids} for ids in ([], [1], [2, 1])],
    )
    write_annotations(
        tmp_path,
        f"scanqa/ScanQA_v1.0_{split}.json",
        [{"scene_id": SCENE, "question_id": "q_7", "question": "What?", "answers": ["b", "c"]}],
    )
    records = [
        record
        for benchmark in ("scanrefer", "multi3drefer", "scan2cap", "scanqa")
        for record in run(tmp_path, benchmark, split)[0]
    ]
    write_llava(tmp_path / "out.json", records)
    assert read_llava(tmp_path / "out.json") == records
    entries = json.loads((tmp_path / "out.json").read_text())
    assert {item["metadata"]["dataset"] for item in entries} == {
        "scanrefer",
        "multi3drefer",
        "scan2cap",
        "scanQA",
    }
    objects = [item["metadata"]["object_id"] for item in entries]
    assert objects[:5] == [1, 2, [], [1], [2, 1]]
    assert entries[-1]["metadata"] == {
        "dataset": "scanQA",
        "question_type": None,
        "ann_id": None,
        "object_id": None,
    }


def test_others_entries_get_ids(tmp_path: Path) -> None:
    box = [0, 0, 0, 1, 1, 1]
    nothing = {"dataset": "scanQA"}
    records = read(
        tmp_path,
        entry("scanrefer"),
        entry("scan2cap", box_input=box),
        entry("multi3drefer", metadata={**entry("multi3drefer")["metadata"], "object_id": ["3"]}),
        entry("scanQA", metadata=nothing),
        entry("sqa3d", id="scene0000_00"),
        entry("sqa3d", id="scene0000_00"),
        entry("sqa3d", id=None),
    )
    assert [record.id for record in records] == [
        "scanrefer_scene0000_00_3_4",
        "scan2cap_scene0000_00_3_4",
        "multi3drefer_scene0000_00_4",
        "scanqa_3",
        "scene0000_00",
        "scene0000_00-2",
        "sqa3d_6",
    ]
    assert [record.object_ids for record in records] == [[3], [3], [3], None, None, None, None]
    assert records[1].box_input == box
    assert records[0].to_json()["conversations"] == entry("scanrefer")["conversations"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("text", "expected a JSON object with an object under 'metadata'"),
        ({"metadata": []}, "expected a JSON object with an object under 'metadata'"),
        (entry("scanqa"), "metadata.dataset is 'scanqa'; known are scanrefer, multi3drefer, scan2"),
        (entry("scanQA", metadata={"dataset": []}), "metadata.dataset is []"),
        (entry("scanQA", video=SCENE), "video is 'scene0000_00'; expected 'scannet/<scene>'"),
        (entry("scanQA", video="scannet/../x"), "'../x' is not a scene name"),
        (entry("scanQA", conversations=None), "conversations must be"),
        (entry("scan2cap"), "box_input is missing"),
        (entry("scan2cap", box_input=[1]), "box_input must be six finite numbers"),
        (entry("scanrefer", metadata={"dataset": "scanrefer"}), "metadata.object_id is None"),
        (
            entry("scanrefer", metadata={"dataset": "scanrefer", "object_id": "chair"}),
            "metadata.object_id is 'chair'",
        ),
        *(
            (
                entry("scanrefer", metadata={"dataset": "scanrefer", "object_id": number}),
                f"metadata.object_id is {number!r}",
            )
            for number in (True, 3.7, -4, [1.9])
        ),
    ],
)
def test_wrong_entry_is_named(tmp_path: Path, item: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, entry("scanQA"), item)
    assert str(error.value).startswith(f"{tmp_path / 'others.json'}: entry 1: ")
    assert message in str(error.value)


def test_array_is_needed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x.json: expected a JSON array of LLaVA-style entries"):
        read_llava(tmp_path / "x.json")


def test_empty_export_is_an_array(tmp_path: Path) -> None:
    assert write_llava(tmp_path / "x.json", []) == 0
    assert json.loads((tmp_path / "x.json").read_text()) == []


def test_both_forms_load(tmp_path: Path) -> None:
    records = read(tmp_path, entry("scanQA"), entry("scanrefer"))
    write_records(tmp_path / "records.jsonl", records)
    assert list(load_records(tmp_path / "records.jsonl")) == records
    assert list(load_records(tmp_path / "others.json")) == records
