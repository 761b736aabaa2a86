"""The record format: what is written reads back, what is wrong is named."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from threedrs.errors import DataError
from threedrs.instructions.llava_format import load_records, write_llava
from threedrs.tasks.record import (
    Record,
    conversation,
    published_id,
    read_records,
    with_unique_ids,
    write_records,
)

VALUE: dict[str, Any] = {
    "format_version": 1,
    "id": "scanrefer_scene0000_00_3_0",
    "benchmark": "scanrefer",
    "scene": "scene0000_00",
    "conversations": [
        {"from": "human", "value": "<image>Find it."},
        {"from": "gpt", "value": "<ground>"},
    ],
    "question_type": "unique",
    "object_ids": [3],
    "box": [0.5, 1.0, 0.25, 1.0, 2.0, 0.5],
    "box_input": None,
    "references": None,
}

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
boxes = st.lists(st.floats(0, 1e6, width=32), min_size=6, max_size=6)


@st.composite
def training_records(draw: st.DrawFn) -> Record:
    """A record as the converters make them for training."""
    benchmark = draw(st.sampled_from(["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"]))
    grounded = benchmark in ("scanrefer", "scan2cap")
    object_ids = draw(st.lists(st.integers(0, 999), max_size=4))
    return Record(
        id=draw(text),
        benchmark=benchmark,
        scene=f"scene{draw(st.integers(0, 9999)):04d}_{draw(st.integers(0, 99)):02d}",
        conversations=conversation(draw(text), draw(text)),
        question_type=draw(st.none() | text),
        object_ids=draw(st.integers(0, 999).map(lambda n: [n]))
        if grounded
        else (object_ids if benchmark == "multi3drefer" else None),
        box=draw(boxes) if grounded else None,
        box_input=draw(boxes) if benchmark == "scan2cap" else None,
    )


record_lists = st.lists(training_records(), max_size=5, unique_by=lambda record: record.id)
any_folder = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_line_is_as_specified() -> None:
    record = Record.from_json(VALUE, "here")
    assert record.to_json() == VALUE
    assert list(record.to_json()) == [
        *("format_version", "id", "benchmark", "scene", "conversations", "question_type"),
        *("object_ids", "box", "box_input", "references"),
    ]
    assert (record.human, record.answer) == ("<image>Find it.", "<ground>")


@any_folder
@given(records=record_lists)
def test_round_trips(tmp_path: Path, records: list[Record]) -> None:
    write_records(tmp_path / "records.jsonl", records)
    assert list(read_records(tmp_path / "records.jsonl")) == records
    assert write_llava(tmp_path / "llava.json", records) == len(records)
    assert list(load_records(tmp_path / "llava.json")) == records


@given(record=training_records(), ascii_only=st.booleans())
def test_a_line_is_read_as_its_parsed_value_is(record: Record, ascii_only: bool) -> None:
    value = record.to_json()
    line = json.dumps(value, ensure_ascii=ascii_only)
    # In one pass, and in the two that a line of another program's takes.
    other = json.dumps(dict(reversed(value.items())))
    assert Record.from_line(line, "a") == Record.from_line(other, "b") == record
    assert Record.from_json(json.loads(line), "c") == record


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('"format_version": 2}', "here: format_version is 2"),
        ('"box": [0, 0, 0, 1, 1, NaN]}', "here: box: expected six finite numbers"),
        ('"box": [0, 0, 0, 1, 1, 1e999]}', "here: box: expected six finite numbers"),
        ('"id": "\\ud800"}', "here: id: holds half a surrogate pair"),
        ('"ann_id": 1.0}', "here: ann_id: 1.0 is not of type 'integer'"),
        ('"id": "cut', "here is not valid JSON"),
        ('"ann_id": 1} 2', "here is not valid JSON"),
    ],
)
def test_a_line_that_begins_well_and_goes_on_wrong(more: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        Record.from_line(f"{json.dumps(VALUE)[:-1]}, {more}", "here")
    assert str(error.value).startswith(message)


def test_absent_optional_fields_are_null() -> None:
    required = ("format_version", "id", "benchmark", "scene", "conversations")
    record = Record.from_json({name: VALUE[name] for name in required}, "here")
    assert record.object_ids is None
    assert record.to_json()["box"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version is 2, this version reads 1"),
        ({"id": ""}, "id: '' should be non-empty; mend the record"),
        ({"id": 5}, "id: 5 is not of type 'string'"),
        ({"scene": "../x"}, "'../x' is not a scene name"),
        ({"scene": None}, "scene: None is not of type 'string'"),
        ({"conversations": []}, 'conversations: expected a "human"'),
        (
            {"conversations": VALUE["conversations"][::-1]},
            'conversations: expected a "human"',
        ),
        (
            {"conversations": conversation("a", " ")},
            'conversations: expected a "human"',
        ),
        ({"question_type": 1}, "question_type: 1 is not of type 'string'"),
        ({"object_ids": 3}, "object_ids: 3 is not of type 'array'"),
        ({"object_ids": [True]}, "object_ids.0: True is not of type 'integer'"),
        ({"box": [1, 2, 3]}, "box: expected six finite numbers"),
        ({"box": [0, 0, 0, 1, 1, float("nan")]}, "box: expected six finite numbers"),
        ({"box_input": [0, 0, 0, 1, -1, 1]}, "box_input: expected six finite numbers"),
        ({"references": ["a", None]}, "references.1: None is not of type 'string'"),
        ({"boxes": []}, "boxes is not a key"),
        (
            {"id": "\ud800"},
            "id: holds half a surrogate pair, which is not a character; mend the record",
        ),
        ({"benchmark": "é\udfff"}, "benchmark: holds half a surrogate pair"),
        (
            {"conversations": conversation("a", "b\ud800")},
            "conversations.1.value: holds half",
        ),
        ({"question_type": "\udc00 \ud800"}, "question_type: holds half a surrogate pair"),
        ({"references": ["a", "\ud800"]}, "references.1: holds half a surrogate pair"),
    ],
)
def test_wrong_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(VALUE) + "\n" + json.dumps({**VALUE, **change}) + "\n")
    with pytest.raises(DataError) as error:
        list(read_records(path))
    assert str(error.value).startswith(f"{path}: line 2: ")
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["id", "benchmark", "scene", "conversations"])
def test_missing_field_is_named(name: str) -> None:
    value = {key: item for key, item in VALUE.items() if key != name}
    with pytest.raises(DataError, match=f"here: '{name}' is a required property; mend"):
        Record.from_json(value, "here")


@pytest.mark.parametrize("line", ["[]", "3", "null"])
def test_line_without_an_object(tmp_path: Path, line: str) -> None:
    (tmp_path / "records.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"line 1: .* is not of type 'object'"):
        list(read_records(tmp_path / "records.jsonl"))


def test_repeated_ids_become_unique() -> None:
    def named(name: str) -> Record:
        return Record.from_json({**VALUE, "id": name}, "here")

    records = [named(name) for name in ("a", "b", "a", "a#2", "a", "b")]
    ids = [record.id for record in with_unique_ids(records)]
    assert ids == ["a", "b", "a#3", "a#2", "a#4", "b#2"]


def test_as_many_records_of_one_id_as_scan2cap_has_take_no_minute() -> None:
    """Linear: a second at most, where a look at all others for each would take minutes."""
    one = Record.from_json({**VALUE, "id": "7"}, "one")
    others = [replace(one, id=f"7#{number}") for number in range(2, 10_000, 2)]
    records = [*others, *[one] * 36_639]
    began = time.process_time()
    unique = list(with_unique_ids(records))
    assert time.process_time() - began < 10
    assert len({record.id for record in unique}) == len(records)
    assert unique[: len(others)] == others


def test_numbers_are_published_as_numbers_and_other_ids_as_they_are() -> None:
    ids = ["0", "12", "12#2", "12-3", "012", "a#2"]
    assert [published_id(name) for name in ids] == [0, 12, 12, "12-3", "012", "a#2"]
