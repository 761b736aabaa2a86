"""docs/ARCHITECTURE.md tells of the tree as it is, and the pages name files that are there."""

import ast
import re
from pathlib import Path

import pytest

from fixtures.repository import ROOT

PACKAGE = ROOT / "src/threedrs"
PAGE = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
ROWS = dict(re.findall(r"^\| `(\w+)/` \|(.*)\|$", PAGE, re.MULTILINE))
PICTURE = PAGE.partition("```mermaid")[2].partition("```")[0]
ARROWS = re.findall(r"^ *(\w+) --> (\w+)$", PICTURE, re.MULTILINE)


def trees(package: str) -> list[ast.Module]:
    return [ast.parse(path.read_text("utf-8")) for path in (PACKAGE / package).rglob("*.py")]


def test_every_package_has_a_row_and_every_row_a_package() -> None:
    assert set(ROWS) == FOLDERS


@pytest.mark.parametrize("package", sorted(ROWS))
def test_a_row_names_definitions_of_its_package(package: str) -> None:
    defined = {
        node.name
        for tree in trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    } | {path.stem for path in (PACKAGE / package).rglob("*.py")}
    named = re.findall(r"`(\w+)`", ROWS[package].rpartition("|")[2])
    assert named
    assert set(named) <= defined


@pytest.mark.parametrize(("used", "user"), ARROWS)
def test_an_arrow_of_the_picture_is_an_import(used: str, user: str) -> None:
    imported = {
        node.module
        for tree in trees(user)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert any(f"{name}.".startswith(f"threedrs.{used}.") for name in imported)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_files_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "src|docs|config|workflow|profiles|slurm|tests|tools|benchmarks|envs"
    for name in re.findall(rf"(?<![\w/.])((?:{folders})/[\w./-]+\.\w+)", text):
        assert (ROOT / name).exists(), f"{page.name}: {name}"
    for name in re.findall(r"`threedrs\.([\w.]+)`", text):
        place = PACKAGE.joinpath(*name.split("."))
        files = (place, place.with_suffix(".py"), place.parent, place.parent.with_suffix(".py"))
        assert any(file.exists() and file != PACKAGE for file in files), f"{page.name}: {name}"
