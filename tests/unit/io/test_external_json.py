"""Another program's JSON: typed values, or one line with file, entry, field and remedy."""

import json
import time

import pytest
from pydantic import Field, NonNegativeInt, field_validator

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, ExternalText, check_external, read_external_json

REMEDY = "copy it again"


class Row(ExternalRow):
    name: ExternalText
    counts: list[NonNegativeInt] = Field(min_length=1)
    scale: float | None = None

    @field_validator("counts")
    @classmethod
    def _once(cls, counts: list[int]) -> list[int]:
        if len(set(counts)) != len(counts):
            raise ValueError("holds a count twice")
        return counts


GOOD = {"name": "a", "counts": [1, 2], "scale": 2, "unused": {"x": [None]}}


def test_rows_come_out_typed(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD, {"name": "b", "counts": [0]}]))
    first, second = read_external_json(path, list[Row], REMEDY)
    assert (first.name, first.counts, first.scale) == ("a", [1, 2], 2.0)
    assert (second.name, second.counts, second.scale) == ("b", [0], None)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"name": None}, "entry 1.name: None is not of type 'string'"),
        ({"name": "\udc80"}, "entry 1.name: .*half a surrogate pair"),
        ({"counts": []}, r"entry 1.counts: \[\] should be non-empty"),
        ({"counts": [3, True]}, "entry 1.counts.1: True is not of type 'integer'"),
        ({"counts": [3, 4.0]}, "entry 1.counts.1: 4.0 is not of type 'integer'"),
        ({"counts": ["3"]}, "entry 1.counts.0: '3' is not of type 'integer'"),
        ({"counts": [-1]}, "entry 1.counts.0: -1 is less than the minimum of 0"),
        ({"counts": [5, 5]}, "entry 1.counts: holds a count twice"),
        ({"scale": "1e-5"}, "entry 1.scale: '1e-5' is not of type 'number', 'null'"),
        ({"scale": float("nan")}, "entry 1.scale is nan; expected a finite number"),
    ],
)
def test_a_fault_is_one_line(wrong, line):
    rows = [GOOD, {**GOOD, **wrong}, {"name": 5}]
    with pytest.raises(DataError, match=f"^rows.json: {line}[^;]*; {REMEDY}$"):
        check_external(rows, list[Row], "rows.json", REMEDY)


def test_a_fault_of_the_whole_or_of_a_mapping_is_one_line():
    with pytest.raises(DataError, match=r"^f: \{\} is not of type 'array'; copy it again$"):
        check_external({}, list[Row], "f", REMEDY)
    with pytest.raises(DataError, match=r"^f: entry 0: 7 is not of type 'object'; copy it again$"):
        check_external([7], list[Row], "f", REMEDY)
    with pytest.raises(DataError, match=r"^f: entry 0: 'counts' is a required property; "):
        check_external([{"name": "a"}], list[Row], "f", REMEDY)
    with pytest.raises(DataError, match=r"^f: living.counts.0: 'x' is not of type 'integer'; "):
        check_external({"living": {**GOOD, "counts": ["x"]}}, dict[str, Row], "f", REMEDY)


def test_forty_thousand_rows_are_fast_whole_or_wrong():
    rows = [{**GOOD, "counts": list(range(8))}] * 40_000
    start = time.process_time()
    assert len(check_external(rows, list[Row], "f", REMEDY)) == 40_000
    with pytest.raises(DataError, match=r"^f: entry 0.name: 1 is not of type 'string'"):
        check_external([{"name": 1, "counts": 2}] * 40_000, list[Row], "f", REMEDY)
    assert time.process_time() - start < 5  # both took 0.6 s
