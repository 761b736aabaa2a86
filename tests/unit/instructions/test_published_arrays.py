"""The eleven published arrays, typed from their description: written, and read back."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.instruction_files import (
    BOXES,
    SCENE,
    box_set,
    description,
    run,
    write_annotations,
    write_sqa3d,
)
from threedrs.demo.write import write_demo
from threedrs.errors import DataError
from threedrs.instructions.convert import convert, take_prepared
from threedrs.instructions.llava_format import write_llava
from threedrs.scannet.boxes import ground_truth_boxes
from threedrs.scannet.layout import DataLayout, scene_split
from threedrs.tasks.record import Record, read_records
from threedrs.tasks.registry import TASKS

BOX1, BOX2 = [0, 0, 0, 1, 1, 1], [3, 0, 0, 2, 1, 1]
CAPTION = "<image> Given an object located at <coord> , describe the object in detail."
FIND = "<image>Identify the object according to the following description.\n"
SEVERAL = "\nThere may be no corresponding object, or there may be one or more objects."
SIMPLY = "<image> What color is it? Answer the question simply."
PHRASE = "Is it big? Answer the question using a single word or phrase."


def write_all(root: Path, split: str) -> None:
    """Write small annotation files of the five benchmarks."""
    write_annotations(
        root,
        f"scanrefer/ScanRefer_filtered_{split}.json",
        [
            description(1, 3, "the FIRST chair"),
            description(1, 4, "it is Brown"),
            description(2, 0, "the other", object_name="desk"),
        ],
    )
    several = {"scene_id": SCENE, "description": "all Chairs", "ann_id": 8}
    write_annotations(
        root,
        f"multi3drefer/multi3drefer_{split}.json",
        [
            {**several, "object_ids": ids, "eval_type": kind}
            for ids, kind in (([], "zt_w_d"), ([2], "st_w_d"), ([2, 1], "mt"))
        ],
    )
    asked = {"scene_id": SCENE, "question": "What color is it?"}
    write_annotations(
        root,
        f"scanqa/ScanQA_v1.0_{split}.json",
        [{**asked, "question_id": f"{split}-scene0000-5", "answers": ["dark brown", "brown"]}],
    )
    question = {"scene_id": SCENE, "situation": "I sit.", "alternative_situation": ["I rest."]}
    write_sqa3d(
        root,
        split,
        [{**question, "question": "Is it big?", "question_id": 220602000031}],
        [{"question_id": 220602000031, "answers": [{"answer": "no"}]}],
    )


def entry(
    identifier: Any, human: str, answer: str, metadata: dict[str, Any], **more: Any
) -> dict[str, Any]:
    turns = [{"value": human, "from": "human"}, {"value": answer, "from": "gpt"}]
    found = {"id": identifier, "video": f"scannet/{SCENE}", "conversations": turns}
    return {**found, "metadata": metadata, **more}


def refer(dataset: str, kind: str, annotation: str, object_id: str) -> dict[str, Any]:
    found = {"dataset": dataset, "question_type": kind}
    return {**found, "ann_id": annotation, "object_id": object_id}


def multi(kind: str, object_ids: list[int]) -> dict[str, Any]:
    found = {"dataset": "multi3drefer", "question_type": kind}
    return {**found, "ann_id": 8, "object_id": object_ids}


SCANREFER = [
    entry(
        0, f"{FIND}The first chair", "<ground>", refer("scanrefer", "unique", "3", "1"), box=BOX1
    ),
    entry(1, f"{FIND}It is brown", "<ground>", refer("scanrefer", "unique", "4", "1"), box=BOX1),
    entry(2, f"{FIND}The other", "<ground>", refer("scanrefer", "unique", "0", "2"), box=BOX2),
]
MULTI3DREFER = [
    entry(0, f"{FIND}All chairs{SEVERAL}", "<ground>", multi("zt_w_d", []), box=[]),
    entry(1, f"{FIND}All chairs{SEVERAL}", "<ground>", multi("st_w_d", [2]), box=[BOX2]),
    entry(2, f"{FIND}All chairs{SEVERAL}", "<ground>", multi("mt", [2, 1]), box=[BOX2, BOX1]),
]
BOTH1, BOTH2 = {"box_input": BOX1, "gt_box": BOX1}, {"box_input": BOX2, "gt_box": BOX2}
QA, SITUATED = {"dataset": "scanQA", "question_type": "unknow"}, {"dataset": "sqa3d"}
TRAIN = {
    "scanrefer": SCANREFER,
    "multi3drefer": MULTI3DREFER,
    "scan2cap": [
        entry(0, CAPTION, "The first chair", refer("scan2cap", "unique", "3", "1"), **BOTH1),
        entry(1, CAPTION, "It is brown", refer("scan2cap", "unique", "4", "1"), **BOTH1),
        entry(2, CAPTION, "The other", refer("scan2cap", "unique", "0", "2"), **BOTH2),
    ],
    "scanqa": [
        entry("scanqa_train-scene0000-5_0", SIMPLY, "dark brown", QA),
        entry("scanqa_train-scene0000-5_1", SIMPLY, "brown", QA),
    ],
    # The question's id stands once for each situation, the alternative first.
    "sqa3d": [
        entry(220602000031, f"<image> I rest. {PHRASE}", "no", {**SITUATED, "question_type": "is"}),
        entry(220602000031, f"<image> I sit. {PHRASE}", "no", {**SITUATED, "question_type": "is"}),
    ],
}
# One detector box overlaps object 1 enough (IoU 0.8), none object 2.
DETECTED = [0, 0, 0, 0.8, 1, 1]
EVALUATION = {
    "scanrefer": SCANREFER,
    "multi3drefer": MULTI3DREFER,
    "scan2cap": [
        entry(
            0,
            CAPTION,
            "The first chair",
            refer("scan2cap", "unique", "3", "1"),
            box_input=DETECTED,
            gt_box=BOX1,
            annotations=["the FIRST chair", "it is Brown"],
        ),
        entry(
            2,  # the row in ScanRefer's file
            CAPTION,
            "The other",
            refer("scan2cap", "unique", "0", "2"),
            box_input=None,
            gt_box=BOX2,
            annotations=["the other"],
        ),
    ],
    "scanqa": [
        entry(
            "scanqa_val-scene0000-5_0",
            SIMPLY,
            "dark brown",
            {**QA, "answers": ["dark brown", "brown"]},
        )
    ],
    # The one true answer is the gpt turn.
    "sqa3d": [
        entry(220602000031, f"<image> I sit. {PHRASE}", "no", {**SITUATED, "question_type": "is"})
    ],
}
# scanrefer_vg, multi3drefer, scan2cap, scanqa of train and val, and three of sqa3d.
ARRAYS = [(name, split) for name, task in TASKS.items() for split in task.splits]


def taken(root: Path, benchmark: str, split: str, array: Path) -> list[Record]:
    """Take an array as `instructions.ready` does; return the records."""
    out = root / "taken" / f"{benchmark}_{split}.jsonl"
    scenes = frozenset(BOXES)
    take_prepared(benchmark, split, array, DataLayout(root=root), scenes, BOXES, out)
    return list(read_records(out))


@pytest.mark.parametrize(("benchmark", "split"), ARRAYS)
def test_each_array_as_published(tmp_path: Path, benchmark: str, split: str) -> None:
    assert len(ARRAYS) == 11
    write_all(tmp_path, split)
    records, _ = run(tmp_path, benchmark, split)
    published = (TRAIN if split == "train" else EVALUATION)[benchmark]
    write_llava(tmp_path / "ours.json", records)
    assert json.loads((tmp_path / "ours.json").read_text()) == published
    (tmp_path / "theirs.json").write_text(json.dumps(published))
    assert taken(tmp_path, benchmark, split, tmp_path / "theirs.json") == records


def test_one_array_of_all_benchmarks(tmp_path: Path) -> None:
    """The same row numbers of several benchmarks do not disturb each other."""
    write_all(tmp_path, "train")
    published = [item for items in TRAIN.values() for item in items]
    (tmp_path / "all.json").write_text(json.dumps(published))
    for benchmark in TASKS:
        records, _ = run(tmp_path, benchmark, "train")
        assert taken(tmp_path, benchmark, "train", tmp_path / "all.json") == records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 0, "video": "scannet/sce', "array.json: "),
        ('{"scene0000_00": []}', "array.json: expected a JSON array of LLaVA-style entries"),
        ('[{"image": "a.jpg"}]', "array.json: entry 0: 'video' is a required property"),
        (json.dumps(TRAIN["scanqa"]), "array.json: holds no entries of sqa3d"),
    ],
)
def test_damaged_and_foreign_arrays_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "array.json").write_text(text)
    with pytest.raises(DataError) as error:
        taken(tmp_path, "sqa3d", "train", tmp_path / "array.json")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_demo_comes_back(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    write_demo(root, 3, 3, frames=4, processes=1)
    layout = DataLayout(root=root)
    scenes = {split: layout.scenes(split) for split in ("train", "val")}
    boxes = {
        scene: {"gt": ground_truth_boxes(layout.scan(scene))[0], "pred": box_set({})}
        for scene in (*scenes["train"], *scenes["val"])
    }
    for benchmark, split in ARRAYS:
        records, again = tmp_path / f"{benchmark}_{split}.jsonl", tmp_path / "again.jsonl"
        convert(benchmark, split, layout, boxes, records)
        write_llava(tmp_path / "array.json", read_records(records))
        members = frozenset(scenes[scene_split(split)])
        take_prepared(benchmark, split, tmp_path / "array.json", layout, members, boxes, again)
        assert again.read_text() == records.read_text()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1).filter(str.strip)
DESCRIPTION = st.builds(
    description,
    st.sampled_from([1, 2, 7]),
    st.integers(0, 9999),
    TEXT,
    object_name=st.sampled_from(["office_chair", "armchair", "desk", "gizmo"]),
)
MULTIPLE = st.fixed_dictionaries(
    {
        "scene_id": st.just(SCENE),
        "object_ids": st.lists(st.sampled_from([1, 2, 7]), unique=True),
        "ann_id": st.integers(0, 9999),
        "eval_type": st.sampled_from(["zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt"]),
        "description": TEXT,
    }
)
QUESTION = st.fixed_dictionaries(
    {
        "scene_id": st.just(SCENE),
        "question_id": st.integers(0, 10**13),  # SQA3D's are numbers
        "question": TEXT,
        "answers": st.lists(TEXT, min_size=1, max_size=3),
        "situation": TEXT,
        "alternative_situation": st.lists(TEXT, max_size=2),
    }
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    descriptions=st.lists(DESCRIPTION, min_size=1, max_size=6),
    several=st.lists(MULTIPLE, min_size=1, max_size=4),
    questions=st.lists(QUESTION, min_size=1, max_size=4, unique_by=lambda q: q["question_id"]),
    split=st.sampled_from(["train", "val"]),
)
def test_conversion_export_and_import_give_the_same_records(
    tmp_path: Path, descriptions: Any, several: Any, questions: Any, split: str
) -> None:
    write_annotations(tmp_path, f"scanrefer/ScanRefer_filtered_{split}.json", descriptions)
    write_annotations(tmp_path, f"multi3drefer/multi3drefer_{split}.json", several)
    named = [{**q, "question_id": f"{split}-scene0000-{q['question_id']}"} for q in questions]
    write_annotations(tmp_path, f"scanqa/ScanQA_v1.0_{split}.json", named)
    answers = [{**q, "answers": [{"answer": text} for text in q["answers"]]} for q in questions]
    write_sqa3d(tmp_path, split, questions, answers)
    for benchmark in TASKS:
        out = tmp_path / f"{benchmark}.jsonl"
        convert(benchmark, split, DataLayout(root=tmp_path), BOXES, out, max_reject_fraction=0)
        records = list(read_records(out))
        write_llava(tmp_path / "array.json", records)
        assert taken(tmp_path, benchmark, split, tmp_path / "array.json") == records
