"""The pages of the documentation: links, the command line's page, the site's table of contents."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fixtures.repository import ROOT
from site_pages import for_site, pages

SITE = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
PAGES = pages()


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and the site make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w -]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ +(.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text("utf-8")
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {name}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {name}#{anchor}"


def test_the_page_of_commands_is_the_command_lines(tmp_path: Path) -> None:
    out = tmp_path / "COMMANDS.md"
    command = ["threedrs.cli", "utils", "docs", "--name", "threedrs", "--output"]
    subprocess.run([sys.executable, "-m", "typer", *command, str(out)], check=True)
    text = (ROOT / "docs/COMMANDS.md").read_text()
    assert text == out.read_text(), f"typer {' '.join(command)} docs/COMMANDS.md writes it anew"


def dataclasses_of(name: str) -> set[str]:
    """Return the dataclasses that a name of docs/API.md shows, a class or a module's own."""
    path = ROOT / "src" / name.replace(".", "/")
    one = path.name if not path.with_suffix(".py").exists() else None
    module = path.parent if one else path
    return {
        node.name
        for node in ast.parse(module.with_suffix(".py").read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
        and one in (None, node.name)
        and any("dataclass" in ast.unparse(line) for line in node.decorator_list)
    }


def test_the_interfaces_show_the_source_of_records() -> None:
    """What fields mean stands beside them; merged with its `__init__` a dataclass has no source."""
    text = (ROOT / "docs/API.md").read_text()
    separate: set[str] = set()
    merged: set[str] = set()
    for name, options in re.findall(r"^::: (\S+)\n((?: .*\n)*)", text, re.MULTILINE):
        found = separate if "merge_init_into_class: false" in options else merged
        found |= dataclasses_of(name)
    assert separate >= {"Task", "Teacher", "SceneFeatures", "Record", "Prediction", "Metric"}
    assert not merged


def test_the_site_has_every_page_once() -> None:
    listed: list[str] = []

    def collect(entry: object) -> None:
        if isinstance(entry, str):
            listed.append(entry)
        for inner in entry.values() if isinstance(entry, dict) else ():
            collect(inner)
        for inner in entry if isinstance(entry, list) else ():
            collect(inner)

    collect(SITE["nav"])
    assert sorted(listed) == sorted(PAGES.values())


def test_links_of_a_page_in_the_site() -> None:
    names = {ROOT / "README.md": "index.md", ROOT / "docs/DATA.md": "DATA.md"}
    text = "[a](../README.md#x) [b](DATA.md) [c](../config/paper.yaml) [d](https://e.org) [e](#f)"
    wanted = "[a](index.md#x) [b](DATA.md) c [d](https://e.org) [e](#f)"
    assert for_site(text, ROOT / "docs/DATA.md", names) == wanted
    image = for_site("![page](docs/images/report.png)", ROOT / "README.md", names)
    assert image == "![page](images/report.png)"


def test_the_picture_is_small() -> None:
    assert (ROOT / "docs/images/report.png").stat().st_size < 300_000
