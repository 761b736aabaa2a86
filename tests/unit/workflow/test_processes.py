"""What a process of the workflow is started with: its code, its Python, its command line."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.repository import ROOT
from threedrs.errors import ConfigError, MachineError
from threedrs.workflow import processes
from threedrs.workflow.processes import (
    check_package,
    check_python,
    quick_imports,
    run_text,
    use_this_checkout,
)


def test_another_checkouts_code_is_refused(tmp_path: Path) -> None:
    check_package(ROOT)
    check_package(tmp_path)  # a folder without code
    (tmp_path / "src/threedrs").mkdir(parents=True)
    with pytest.raises(MachineError, match=rf"this folder has its own, {tmp_path}/src/threedrs;"):
        check_package(tmp_path)
    (tmp_path / "link").symlink_to(ROOT)
    check_package(tmp_path / "link")


@pytest.mark.parametrize("name", ["a b", "it's", "R&D", "a(1)", "a$b", "a;b", "a\\b"])
def test_a_python_that_scripts_cannot_be_started_by(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", f"/home/{name}/.venv/bin/python")
    with pytest.raises(MachineError, match="without quoting it"):
        check_python()
    monkeypatch.setattr(sys, "executable", "/home/münchen-2_a.b+c/.venv/bin/python")
    check_python()


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "PYTHONPATH", "LC_ALL", "LOGNAME"):  # to be put back
        monkeypatch.setenv(name, os.environ.get(name, ""))

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(processes.getpass, "getuser", unknown)
    use_this_checkout(ROOT)
    assert os.environ["LOGNAME"] == f"uid{os.getuid()}"
    assert os.environ["LC_ALL"] == "C.UTF-8"


def test_a_program_is_asked_in_a_fixed_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_MESSAGES", "tr_TR.UTF-8")
    monkeypatch.setenv("LANGUAGE", "tr")
    shown = 'printf "%s,%s,%s,\\374," "$LC_ALL" "$LC_MESSAGES" "$LANGUAGE"; cat'
    assert run_text("sh", "-c", shown, said="é").stdout == "C.UTF-8,,,�,é"


def test_an_empty_argument_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Such as threedrs features verify "$STORE", which would be the working folder.
    monkeypatch.setattr("sys.argv", ["threedrs", "features", "verify", ""])
    with pytest.raises(ConfigError, match=r"^command line: an argument is empty; perhaps a variab"):
        check_package(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ["threedrs", "score", "scanqa"],
        ["threedrs.distributed.launch", "threedrs.train", "--config"],
        ["threedrs.predict", "--records", "a", "--scenes", "b", "--out", "c", "--model"],
    ],
)
def test_bytes_that_are_no_text_are_one_line(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", *map(os.fsencode, command), b"Kl\xfcster"],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "Kl\\xfcster: has bytes that are not utf-8" in line


def test_garbage_is_collected_again_after_an_import_that_fails() -> None:
    with quick_imports():
        assert not gc.isenabled()
    with pytest.raises(ImportError), quick_imports():
        import threedrs.no_such_module  # noqa: F401
    assert gc.isenabled()
