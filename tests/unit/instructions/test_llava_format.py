"""The field's own JSON array: what is exported, and what others' files may look like."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.instruction_files import SCENE
from threedrs.errors import DataError
from threedrs.instructions.llava_format import load_records, write_llava
from threedrs.tasks.record import Record, conversation, write_records

REFER = {"dataset": "scanrefer", "question_type": "unique", "object_id": 3}


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
    return list(load_records(path))


def test_others_entries_keep_their_ids(tmp_path: Path) -> None:
    box = [0, 0, 0, 1, 1, 1]
    nothing = {"dataset": "scanQA"}
    records = read(
        tmp_path,
        entry("scanrefer"),
        entry("scan2cap", box_input=box),
        entry(
            "multi3drefer",
            metadata={**entry("multi3drefer")["metadata"], "object_id": ["3"]},
            box=box,
        ),
        entry("scanQA", metadata=nothing),
        entry("sqa3d", id="scene0000_00"),
        entry("sqa3d", id="scene0000_00"),
        entry("sqa3d", id=None),
    )
    assert [record.id for record in records] == [
        "0",
        "0",
        "0",
        "0",
        "scene0000_00",
        "scene0000_00#2",
        "6",
    ]
    assert [record.object_ids for record in records] == [[3], [3], [3], None, None, None, None]
    assert records[1].box_input == box
    assert records[2].box == [box]  # of several objects or none, so a list in any case
    assert [record.ann_id for record in records] == [4, 4, 4, None, None, None, None]
    assert records[0].to_json()["conversations"] == entry("scanrefer")["conversations"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("text", "'text' is not of type 'object'; mend the entry"),
        ({"metadata": {}}, "'video' is a required property"),
        (entry("scanqa"), "metadata.dataset is 'scanqa'; known are scanrefer, multi3drefer, scan2"),
        (entry("scanQA", metadata={"dataset": []}), "metadata.dataset: [] is not of type 'string'"),
        (entry("scanQA", video=SCENE), "video: is 'scene0000_00'; expected 'scannet/<scene>'"),
        (entry("scanQA", video="scannet/../x"), "'../x' is not a scene name"),
        (entry("scanQA", conversations=None), "conversations: None is not"),
        (entry("scan2cap"), "box_input is missing"),
        (
            entry("scanrefer", box=[[1]]),
            "box: expected six finite numbers (centre and size), or a ",
        ),
        (entry("scanrefer", metadata={**REFER, "ann_id": "x"}), "metadata: ann_id.0: 'x' is not"),
        (entry("scanQA", id=[]), "id: [] is not of type 'string'"),
        (entry("scanQA", metadata={"dataset": "scanQA", "answers": "a"}), "references: 'a' is not"),
        (entry("scan2cap", box_input=[1]), "box_input: expected six finite numbers"),
        (entry("scanrefer", metadata={"dataset": "scanrefer"}), "metadata: 'object_id' is a req"),
        (
            entry("scanrefer", metadata={"dataset": "scanrefer", "object_id": "chair"}),
            "metadata: object_id.0: 'chair' is not of type 'integer'",
        ),
        *(
            (
                entry("scanrefer", metadata={"dataset": "scanrefer", "object_id": number}),
                f"metadata: object_id.0: {number!r}".replace("[", "").replace("]", ""),
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
        list(load_records(tmp_path / "x.json"))


def test_empty_export_is_an_array(tmp_path: Path) -> None:
    assert write_llava(tmp_path / "x.json", []) == 0
    assert json.loads((tmp_path / "x.json").read_text()) == []


def test_both_forms_load(tmp_path: Path) -> None:
    records = read(tmp_path, entry("scanQA"), entry("scanrefer"))
    write_records(tmp_path / "records.jsonl", records)
    assert list(load_records(tmp_path / "records.jsonl")) == records
    assert list(load_records(tmp_path / "others.json")) == records
