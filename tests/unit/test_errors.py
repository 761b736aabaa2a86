"""What errors say: the nearest name, all choices, and foreign errors in one line."""

import errno
from pathlib import Path

import pytest

from threedrs.errors import (
    ConfigError,
    DataError,
    choose_one,
    counted,
    did_you_mean,
    nearest_path,
    one_line,
    problems_of,
    raise_all,
    user_message,
    write_problem,
)


def test_the_nearest_name_is_asked_for() -> None:
    assert did_you_mean("scanq", ["scanqa", "sqa3d"]) == "did you mean scanqa?"
    assert did_you_mean("chairs", ["scanqa", "sqa3d"]) == ""
    # "epoch" and "steps" share "ep" or "s" of five letters each: 2 * 2 / 10 = 0.4.
    assert did_you_mean("epoch", ["steps"]) == ""
    assert did_you_mean("epoch", ["steps"], cutoff=0.4) == "did you mean steps?"


def test_the_nearest_path_differs_in_one_name(tmp_path: Path) -> None:
    (tmp_path / "models/small").mkdir(parents=True)
    (tmp_path / "models/notes.md").touch()
    (tmp_path / "models/.rows.jsonl.lock").touch()
    near = f"did you mean {tmp_path}/models/small?"
    assert nearest_path(tmp_path / "model/small") == near
    assert nearest_path(tmp_path / "models/smal") == near
    # A lock is hidden, and what is there is not near to itself.
    assert nearest_path(tmp_path / "models/rows.jsonl") == ""
    assert nearest_path(tmp_path / "models/notes.md") == ""


def test_all_choices_stand_before_the_nearest() -> None:
    assert choose_one("3dr", ["3drs", "baseline"]) == (
        "choose one of: 3drs, baseline; did you mean 3drs?"
    )
    assert choose_one("x", iter(["3drs", "baseline"])) == "choose one of: 3drs, baseline"


def test_a_foreign_error_is_one_line() -> None:
    error = ValueError("first\n  second")
    assert one_line(error) == "first second"
    assert one_line(KeyError()) == "KeyError"
    assert one_line(ValueError("a" * 20), most=10) == "aaaaaaa..."


def test_things_are_counted_as_people_say_it() -> None:
    assert [counted(number, "job") for number in range(3)] == ["0 jobs", "1 job", "2 jobs"]


def test_a_file_that_cannot_be_written_has_the_name_that_the_user_knows() -> None:
    for name, known in (
        ("results/.found.png.12.tmp", "results/found.png: cannot be written"),
        (".found.png.12.tmp", "found.png: cannot be written"),
        ("out/.pub.12.tmp/scans/a.sens", "out/pub/scans/a.sens: cannot be written"),
        ("a/notes.12.tmp", "a/notes.12.tmp: cannot be written"),  # not a name of ours
    ):
        said = user_message(OSError(errno.EROFS, "Read-only file system", name))
        assert str(said).startswith(known)


def test_a_link_without_its_target_is_named(tmp_path: Path) -> None:
    link = tmp_path / "results"
    link.symlink_to("/unmounted/disk")
    with pytest.raises(FileExistsError) as raised:
        link.mkdir(parents=True, exist_ok=True)
    says = "is a link to /unmounted/disk, which is missing; put it there or mend the link, and run"
    assert str(user_message(raised.value)).startswith(f"{link}: {says}")
    with pytest.raises(FileNotFoundError) as raised_below:
        (link / "a.json").write_text("")
    assert str(user_message(raised_below.value)).startswith(f"{link}: {says}")
    assert write_problem(raised_below.value).startswith(f"cannot be written, as {link} {says}")


def test_a_path_that_cannot_be_looked_at_has_no_link() -> None:
    error = OSError(errno.ENAMETOOLONG, "File name too long", f"/a/{'n' * 300}/b")
    assert write_problem(error).startswith("cannot be written (File name too long); make the fold")
    assert user_message(error) is None


def test_a_working_folder_that_was_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(FileNotFoundError) as raised:
        Path.cwd()
    assert str(user_message(raised.value)).startswith("the working folder: was removed; change")
    monkeypatch.chdir(tmp_path)
    assert user_message(raised.value) is None  # such as that of a socket, which names no file


def test_several_errors_are_raised_as_one() -> None:
    raise_all([])
    with pytest.raises(DataError, match=r"^a\.json: missing$"):
        raise_all([DataError("a.json: missing")])
    with pytest.raises(ConfigError, match=r"^a\nb$"):
        raise_all([DataError("a"), DataError("b")])


def test_a_folder_that_cannot_be_entered_is_a_problem_of_what_is_checked() -> None:
    def check() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "model/config.json")

    (line,) = problems_of(check, "model.path: ")
    assert line.startswith("model.path: model/config.json: cannot be read or written")
