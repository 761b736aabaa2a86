"""Outputs appear whole or not at all; bad input is named."""

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from threedrs.errors import DataError, user_message
from threedrs.io.files import (
    atomic_file,
    atomic_folder,
    check_scene_name,
    read_json,
    read_json_lines,
    read_text,
    sha256_of_json,
    write_json_lines,
    write_text,
)


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError("disk full")


def test_a_failed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk full"), atomic_file(path) as temporary:
        fail_half_way(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_writer_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    (path / "kept").write_text("old")
    with pytest.raises(RuntimeError, match="disk full"), atomic_folder(path) as temporary:
        fail_half_way(temporary / "new")
    assert [file.name for file in path.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder that stands where another one is written."""
    path = tmp_path / "store"
    path.mkdir()
    (path / "old").write_text("")
    return path


def test_a_folder_replaces_the_old_one_and_leftovers(tmp_path: Path, path: Path) -> None:
    (tmp_path / ".store.99999.tmp").mkdir()
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("")
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_folder_is_never_half_there(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:  # killed while it removes the old files
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: os._exit(9))
        with atomic_folder(path) as temporary:
            (temporary / "new").write_text("")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [file.name for file in path.iterdir()] == ["new"]
    write_text(tmp_path / "other", "")
    with atomic_folder(path) as temporary:
        (temporary / "newer").write_text("")
    assert {file.name for file in tmp_path.iterdir()} == {"store", "other"}


def test_a_folder_that_cannot_take_the_others_name_leaves_it(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if target == path and (self / "new").exists():
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:
        (temporary / "new").write_text("")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    living = os.getppid()
    kept = {f".a.json.{living}.tmp", f".b.json.{gone.pid}.tmp", f"a.json.{gone.pid}.tmp", "a.tmp"}
    left = {f".a.json.{gone.pid}.tmp", f".a.json.{os.getpid()}.tmp"}
    folders = {f".store.{gone.pid}.tmp", f"..store.{gone.pid}.tmp.{gone.pid}.tmp"}
    for name in kept | left:
        (tmp_path / name).touch()
    for name in folders:
        (tmp_path / name / "array").mkdir(parents=True)
    write_text(tmp_path / "a.json", "new")
    assert {path.name for path in tmp_path.iterdir()} == kept | folders | {"a.json"}
    with atomic_folder(tmp_path / "store") as folder:
        (folder / "new").touch()
    assert {path.name for path in tmp_path.iterdir()} == kept | {"a.json", "store"}


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(OSError) as raised, atomic_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(user_message(raised.value)).startswith(
        f"{path}: cannot be written (No space left on"
    )
    with pytest.raises(OSError) as raised, atomic_file(path):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "another")
    assert raised.value.filename == "another"


def test_a_locked_file_may_have_been_read_or_written() -> None:
    said = user_message(PermissionError(errno.EACCES, "Permission denied", "data/a.txt"))
    assert str(said).startswith("data/a.txt: cannot be read or written (Permission denied); make")
    said = user_message(OSError(errno.EROFS, "Read-only file system", "a"))
    assert str(said).startswith("a: cannot be written (Read-only file system); make the folder")


def test_json_lines_round_trip(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"b": "ü\n"}]
    path = tmp_path / "rows.jsonl"
    assert write_json_lines(path, rows) == 2
    assert list(read_json_lines(path)) == rows


def test_a_value_json_cannot_hold_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_lines(path, [{"a": 1.0}, {"a": float("nan")}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "line 1 column 2"), ("[" * 100_000, "recursion depth"), ("\udcff", "is not UTF-8")],
)
def test_bad_json_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=said) as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_a_full_disk_is_named_with_the_folder_that_was_being_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised, atomic_folder(tmp_path / "scan"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(user_message(raised.value)).startswith(f"{tmp_path}/scan: cannot be written")


def test_a_mark_that_editors_put_before_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\r\n', encoding="utf-8-sig")
    assert read_text(path) == '{"a": 1}\n'
    assert [read_json(path), *read_json_lines(path)] == [{"a": 1}, {"a": 1}]
    for other in ("utf-16", "utf-16-le"):  # with a mark of its own, and without
        path.write_text('{"a": 1}', encoding=other)
        with pytest.raises(DataError, match="is not UTF-8 text; copy the file again, or save it"):
            read_text(path)


def test_a_bad_line_is_numbered(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(DataError, match="line 2"):
        list(read_json_lines(path))


@pytest.mark.parametrize("name", ["../scene0000_00", "scene0000_00/..", "scene000_00", "", 3, None])
def test_names_that_could_leave_the_root_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="is not a scene name"):
        check_scene_name(name, "list")


def test_the_hash_of_json_ignores_the_order_of_keys() -> None:
    value = {"a": 1, "b": [1, {"c": None, "d": 0.5}]}
    shuffled = json.loads('{"b": [1, {"d": 0.5, "c": null}], "a": 1}')
    assert sha256_of_json(value) == sha256_of_json(shuffled)
    assert sha256_of_json(value) != sha256_of_json(value | {"a": 2})


def test_a_missing_file_is_looked_for_beside(tmp_path: Path) -> None:
    (tmp_path / "3drs").mkdir()
    (tmp_path / "3drs" / "predictions.jsonl").write_text('{"a": 1}\n{"b": \n')
    with pytest.raises(DataError, match=r"cannot be read \(No such .*did you mean .*/3drs/predict"):
        list(read_json_lines(tmp_path / "3dr" / "predictions.jsonl"))
    with pytest.raises(DataError, match="put it there, or correct the path"):
        read_json(tmp_path / "other" / "predictions.jsonl")
    with pytest.raises(DataError, match="line 2 is not valid JSON; mend that place, or unpack"):
        list(read_json_lines(tmp_path / "3drs" / "predictions.jsonl"))
