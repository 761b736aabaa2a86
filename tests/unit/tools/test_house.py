"""The counts of tools/house.py on a tiny package, counted by hand."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fixtures.repository import ROOT


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "tools" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


FILES = {
    "toy/__init__.py": "",
    "toy/loose.py": "import os\n\nfrom toy.cut import store\n\nX = 1  # a comment\n",
    "toy/cut/__init__.py": "",
    # A circle at module level: store -> read -> store. The one under TYPE_CHECKING does not count.
    "toy/cut/store.py": "from toy.cut.read import (\n    a,\n    b,\n)\n",
    "toy/cut/read.py": (
        "from typing import TYPE_CHECKING\n"
        "from . import store\n"
        "if TYPE_CHECKING:\n    from toy import loose\n"
        "def a():\n    return '# not a comment'\n"
    ),
    # A circle only through a function: report.page -> evaluation.store -> report.page.
    "toy/evaluation/__init__.py": "",
    "toy/evaluation/store.py": "def f():\n    from ..report import page\n    return page\n",
    "toy/report/__init__.py": "",
    "toy/report/page.py": "try:\n    import toy.evaluation.store\nexcept ImportError:\n    pass\n"
    + "def long():\n"
    + "    # why\n" * 61
    + "    return 1\n",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "src"


def test_counts_of_a_tiny_package(house: ModuleType, source: Path) -> None:
    counts = house.measure(house.read_modules(source))
    # Lines: loose 5, cut.store 4, cut.read 6, evaluation.store 3, page 4 + 63, empty __init__ 0.
    assert counts == {
        "lines": "85",
        "files": "9",
        "median file length": "3 lines",
        "files under 60 lines": "8",
        "base names that stand twice": "1 (store.py x2)",
        "share of import lines": "12.9 %",  # 2 + 4 + 3 + 1 + 1 of 85
        "share of lines with a comment": "72.9 %",  # 1 + 61 of 85
        "longest function": "63 lines (toy.report.page.long)",
        "functions over 60 lines": "1 of 3",
        "modules in an import circle": "2 (toy.cut.read, toy.cut.store)",
        "the same, with imports inside functions": (
            "4 (toy.cut.read, toy.cut.store, toy.evaluation.store, toy.report.page)"
        ),
        "loose modules in the package": "1 (toy.loose)",
        "arrows from evaluation to report or training": (
            "1 (toy.evaluation.store -> toy.report.page)"
        ),
    }


def test_a_circle_fails(house: ModuleType, source: Path, capsys) -> None:
    assert house.main(["--source", str(source), "--threads", "none.toml"]) == 1
    assert "modules in an import circle" in capsys.readouterr().out


def test_files_of_threads(house: ModuleType, source: Path, capsys) -> None:
    (source / "toy" / "cut" / "read.py").write_text("a = b = 'chairs'\n")  # the circle is gone
    threads = source.parent / "threads.toml"
    text = (
        '[[thread]]\nname = "a frame"\naim = 1\n'
        'files = ["src/toy/loose.py", "src/toy/cut/read.py"]\n'
        '[[thread]]\nname = "a word"\naim = 1\nwords = ["chairs"]\n'
    )
    threads.write_text(text)
    arguments = ["--source", str(source), "--threads", str(threads)]
    assert house.main(arguments) == 0
    said = capsys.readouterr().out
    assert "files to open: a frame" in said
    assert "2 (aim: 1)" in said
    assert "1 (aim: 1)" in said
    threads.write_text(text.replace("cut/read.py", "cut/gone.py"))
    assert house.main(arguments) == 1
    assert "src/toy/cut/gone.py is not there" in capsys.readouterr().err


def test_the_project_has_no_circle_and_its_threads_are_there(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(ROOT)
    assert house.main([]) == 0, capsys.readouterr()
