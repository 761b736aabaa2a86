"""Remedies name commands that work when typed, and none deletes for a mistyped name."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.repository import ROOT
from threedrs.cli import app
from threedrs.errors import ThreedrsError

# Without one of these Snakemake stops and asks for the number of cores.
ENOUGH = re.compile(r"(^|\s)(--cores|-c\d*|-n|--dry-run|--profile|--unlock|--lint|--list-rules)\b")
PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "Snakefile", "Makefile", "config/*.yaml")


def strings(path: Path) -> list[str]:
    """Return the strings of a Python file; what an f-string fills in stands as {}."""
    found = []
    inner: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [node.value] if id(node) not in inner else []
    return found


def typed(text: str) -> list[str]:
    """Return the calls that a reader may type: in backticks, or on a line of their own."""
    quoted = re.findall(r"`+(snakemake [^`]+)`", text)
    return [" ".join(one.split()) for one in quoted]


def test_the_scan_finds_a_command_that_stops() -> None:
    assert not ENOUGH.search(typed("delete it and run `snakemake scenes` again")[0])
    assert ENOUGH.search(typed("run `snakemake --cores all\n  scenes`")[0])
    assert ENOUGH.search(typed("`snakemake -n all`")[0])


@pytest.mark.parametrize("folder", ["src", "workflow"])
def test_messages_name_commands_that_work_when_typed(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for text in strings(path):
            for command in typed(text):
                assert ENOUGH.search(command), f"{path}: {command}"
            assert not re.search(r"run the stage\b|the stage `", text), f"{path}: {text}"
            if text.startswith("snakemake "):
                assert ENOUGH.search(text), f"{path}: {text}"


def test_pages_and_rules_name_commands_that_work_when_typed() -> None:
    paths = [path for pattern in PAGES for path in ROOT.glob(pattern)]
    paths += [*(ROOT / "workflow").rglob("*.smk"), *(ROOT / "src").rglob("*.j2")]
    for path in paths:
        for command in typed(path.read_text(encoding="utf-8")):
            assert ENOUGH.search(command), f"{path}: {command}"


@pytest.mark.parametrize(
    "command",
    [
        ["scene", "show", "results/scenes/scene0000_0.zarr"],
        ["scene", "show", "results/scenes"],
        ["features", "verify", "results/features/vgt/train-000.zarr"],
        ["features", "verify", "results/features"],
        ["features", "show", "results/features/vgt/train-000.zarr", "scene0000_00"],
        ["ask", "results/train/3dr/model", "results/scenes/scene0000_00.zarr", "what is it"],
        ["score", "scanqa", "results/eval/3dr/scanqa/predictions.jsonl", "--out", "m.json"],
        ["instructions", "export", "results/instructions/scanq_val.jsonl", "--out", "a.json"],
        ["model", "merge", "results/train/3dr/model", "merged"],
        ["verify", "--results", "result"],
        ["sens", "info", "scene0000_0.sens"],
    ],
)
def test_a_mistyped_name_is_no_reason_to_delete(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results/scenes").mkdir(parents=True)
    (tmp_path / "results/features").mkdir()
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, command)
    message = f"{said.exception} {said.output}"
    assert said.exit_code == 1
    assert isinstance(said.exception, ThreedrsError | OSError | SystemExit), message
    assert not re.search(r"\b(delete|remove|rm)\b", message), message


def test_the_command_against_used_checkpoints_leaves_trainings_that_go_on(tmp_path: Path) -> None:
    (command,) = re.findall(
        r"```sh\n\s*(.*checkpoints.*)\n", (ROOT / "docs/RELIABILITY.md").read_text()
    )
    for run in ("ends", "goes on", "imported"):
        (tmp_path / "results/train" / run).mkdir(parents=True)
    for run in ("ends", "goes on"):
        (tmp_path / "results/train" / run / "checkpoints/step-00000050").mkdir(parents=True)
    for run in ("ends", "imported"):
        (tmp_path / "results/train" / run / "train.json").touch()
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    left = {str(path.relative_to(tmp_path / "results/train")) for path in tmp_path.glob("*/*/*/*")}
    assert left == {"ends/train.json", "goes on/checkpoints", "imported/train.json"}
