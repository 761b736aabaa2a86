"""Scans that cannot be used: whose fault it is, what files say of them, how many are too many."""

import errno
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from threedrs.errors import DataError, StoreError
from threedrs.scannet.excluded_scans import (
    BadScenePolicy,
    check_excluded,
    check_limit,
    check_removed,
    count_excluded,
    excluded_rows,
    excluding,
    is_of_the_file,
    read_excluded,
)


def caused_by(*causes: BaseException) -> DataError:
    """An error whose cause is the first of ``causes``, whose cause is the next."""
    error = DataError("a.sens: cannot be read")
    last: BaseException = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ((), True),
        ((ValueError("bad zlib"),), True),
        ((OSError("image file is truncated"),), True),  # as Pillow raises it: no number
        ((OSError(errno.ENOENT, "No such file"),), True),
        ((PermissionError(errno.EACCES, "Permission denied"),), True),
        ((OSError(errno.ENOSPC, "No space left on device"),), False),
        ((OSError(errno.EDQUOT, "Disk quota exceeded"),), False),
        ((OSError(errno.EIO, "Input/output error"),), False),
        ((OSError(errno.ESTALE, "Stale file handle"),), False),
        ((OSError(errno.EMFILE, "Too many open files"),), False),
        ((MemoryError(),), False),
        ((ValueError("outer"), OSError(errno.EIO, "inner")), False),
    ],
)
def test_whose_fault_it_is(causes: tuple[BaseException, ...], expected: bool) -> None:
    error = caused_by(*causes)
    assert is_of_the_file(error) is expected
    reasons: dict[str, str] = {}
    if expected:
        with excluding("scene0000_00", reasons):
            raise error
        assert reasons == {"scene0000_00": "a.sens: cannot be read"}
    else:
        with pytest.raises(DataError), excluding("scene0000_00", reasons):
            raise error
        assert reasons == {}


@pytest.mark.parametrize("error", [StoreError("full"), OSError(errno.ENOSPC, "full"), KeyError()])
def test_only_faults_of_input_files_are_left_out(error: Exception) -> None:
    with pytest.raises(type(error)), excluding("scene0000_00", {}):
        raise error


def write_manifest(path: Path, scenes: int, left_out: dict[str, str]) -> Path:
    value = {
        "format_version": 1,
        "scenes": {f"scene{n:04d}_00": {} for n in range(scenes)},
        "left_out": excluded_rows(left_out),
    }
    path.write_text(json.dumps(value))
    return path


def test_files_say_what_is_left_out(tmp_path: Path) -> None:
    first = write_manifest(tmp_path / "a.json", 1, {"scene0101_00": "no pose"})
    second = write_manifest(tmp_path / "b.json", 1, {"scene0102_00": "truncated"})
    found = read_excluded(first, second)
    assert found == {"scene0101_00": "no pose", "scene0102_00": "truncated"}
    first.write_text('{"scenes": {}}')
    assert read_excluded(first) == {}


def test_counts_add_what_conversions_left_out(tmp_path: Path) -> None:
    reasons = {"scene0101_00": "no pose", "scene0102_00": "no mesh", "scene0103_00": "unused"}
    summary = tmp_path / "scanqa_train.summary.json"
    summary.write_text(json.dumps({"left_out": {"scene0102_00": 4, "scene0999_00": 7}}))
    scenes = ["scene0101_00", "scene0102_00", "scene0101_00"]
    assert count_excluded(reasons, scenes, [summary, tmp_path / "none.json"], "records") == {
        "records": 7,
        "scenes": [
            {"scene": "scene0101_00", "reason": "no pose", "records": 2},
            {"scene": "scene0102_00", "reason": "no mesh", "records": 5},
            {"scene": "scene0103_00", "reason": "unused", "records": 0},
        ],
    }
    assert count_excluded({}, [], [summary], "questions") == {"questions": 0, "scenes": []}


skip = partial(BadScenePolicy, on_bad_scene="skip")
BAD = {"scene0101_00": "a.sens: it is truncated"}


def test_a_few_left_out_scenes_let_a_run_go_on(tmp_path: Path) -> None:
    manifests = [
        write_manifest(tmp_path / "a.json", 18, BAD),
        write_manifest(tmp_path / "b.json", 1, {}),
    ]
    out = tmp_path / "left_out" / "val.json"
    check_excluded("val", manifests, skip(max_bad_fraction=0.05), out)
    assert json.loads(out.read_text()) == {
        "format_version": 1,
        "split": "val",
        "scenes": 19,
        "left_out": excluded_rows(BAD),
    }
    assert read_excluded(out) == BAD


@pytest.mark.parametrize(
    ("scenes", "policy", "message"),
    [
        (
            18,
            skip(max_bad_fraction=0.05),
            r"1 of 19 train scenes cannot be used, more than data\.max_bad_fraction 0\.05, e\.g\. "
            r"scene0101_00: a\.sens: it is truncated; the scene report, results/scenes/report\.html"
            r", lists all: put their files right, or raise data\.max_bad_fraction to go on without",
        ),
        (
            999,
            BadScenePolicy(on_bad_scene="fail", max_bad_fraction=1),
            r"1 of 1000 train scenes cannot be used \(data\.on_bad_scene: fail\), e\.g\.",
        ),
        (0, skip(max_bad_fraction=1), "none of the 1 train scenes can be used, e.g."),
    ],
)
def test_too_many_end_the_run_in_one_line(
    tmp_path: Path, scenes: int, policy: BadScenePolicy, message: str
) -> None:
    manifest = write_manifest(tmp_path / "a.json", scenes, BAD)
    with pytest.raises(DataError, match=message) as error:
        check_excluded("train", [manifest], policy, tmp_path / "out.json")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.json").exists()


def test_an_evaluation_on_the_way_asks_nothing_of_left_out_scenes(tmp_path: Path) -> None:
    from threedrs.tasks.record import Record, conversation, write_records
    from threedrs.training.evaluation import Evaluation

    records = [
        Record(
            id=f"q{number}",
            benchmark="scanqa",
            scene="scene0101_00",
            conversations=conversation("<image> Is it?", "yes"),
            references=["yes"],
        )
        for number in range(2)
    ]
    path = tmp_path / "scanqa_val.jsonl"
    write_records(path, records)
    listed = write_manifest(tmp_path / "val.json", 1, {"scene0101_00": "no pose"})
    config: dict[str, Any] = {
        "evaluation": {"records": [str(path)], "settings": {}, "left_out": str(listed)},
        "train": {"eval_samples": 2, "eval_every": 1},
        "paths": {"scenes": str(tmp_path / "no stores")},
    }
    student: Any = None
    assert Evaluation(config, student, student).records == {}
    del config["evaluation"]["left_out"]
    with pytest.raises(StoreError, match="there is no scene store of scene0101_00"):
        Evaluation(config, student, student)


def test_another_limit_is_held_against_what_has_passed(tmp_path: Path) -> None:
    rows = [{"scene": "scene0001_00", "reason": "no poses"}]
    passed, out = tmp_path / "val.json", tmp_path / "limit.json"
    passed.write_text(json.dumps({"split": "val", "scenes": 3, "left_out": rows}))
    check_limit(passed, skip(max_bad_fraction=0.25), out)
    assert json.loads(out.read_text())["max_bad_fraction"] == 0.25
    with pytest.raises(DataError, match="1 of 4 val scenes cannot be used, more than"):
        check_limit(passed, skip(max_bad_fraction=0.2), out)
    with pytest.raises(DataError, match=r"on_bad_scene: fail\), e\.g\. scene0001_00: no poses"):
        check_limit(passed, BadScenePolicy(on_bad_scene="fail", max_bad_fraction=1), out)


@pytest.mark.parametrize("malformed", ["", "[]", '{"scenes": 3}', '{"scenes": [{}]}'])
def test_removed_stores_are_those_that_a_manifest_lists(tmp_path: Path, malformed: str) -> None:
    (tmp_path / "shards").mkdir()
    write_manifest(tmp_path / "shards/train-000.json", 4, {"scene0009_00": "truncated"})
    (tmp_path / "shards/train-001.json").write_text(malformed)
    for scene in ("scene0000_00", "scene0001_00", "scene0002_00"):
        (tmp_path / f"{scene}.zarr").mkdir()
        (tmp_path / f"{scene}.zarr/zarr.json").touch()
    shards = {
        # scene0003_00 is of the scene list no more
        "train-000": ["scene0001_00", "scene0000_00", "scene0002_00", "scene0009_00"],
        "train-001": ["scene0100_00"],
        "val-000": ["scene0200_00"],
    }
    check_removed(shards, tmp_path)
    (tmp_path / "scene0001_00.zarr/zarr.json").unlink()
    with pytest.raises(DataError, match=r"/scene0001_00\.zarr: removed, though .* verify --repair"):
        check_removed(shards, tmp_path)
    shutil.rmtree(tmp_path / "scene0000_00.zarr")
    with pytest.raises(DataError, match=r"/scene0001_00\.zarr and 1 more: removed"):
        check_removed(shards, tmp_path)
