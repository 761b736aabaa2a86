"""The stand-in for the interpreter forks what it should, also beside modules that were imported."""

import subprocess
from pathlib import Path

import pytest

from fixtures.forked_jobs import UNREAD, forked_python

pytestmark = pytest.mark.slow

SCRIPT = "import os, sys\nprint('torch' in sys.modules, os.environ.get('HF_ENDPOINT'))\n"


def said(folder: Path, *arguments: str) -> str:
    """Return what a rule's script says: whether torch was there before it, and a variable."""
    script = folder / "workflow/.snakemake/scripts/tmp.boxes.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(SCRIPT)
    command = [forked_python(), str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_script_finds_torch_whatever_was_imported_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in UNREAD:
        monkeypatch.setenv(name, "as an import sets it")
    assert said(tmp_path) == "True None\n"


def test_a_variable_that_libraries_read_at_their_import_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert said(tmp_path) == "False http://127.0.0.1:9\n"
