"""Each rule file says what goes in, what comes out, and the commands that do the same by hand."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.repository import ROOT
from threedrs.cli import app

RULES = [path for path in (ROOT / "workflow/rules").glob("*.smk") if path.stem != "common"]
ENTRY = re.compile(r"#   \w+ += ")


def header(path) -> list[str]:
    lines = path.read_text().splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


def commands(path) -> list[list[str]]:
    lines = header(path)
    start = next(number for number, line in enumerate(lines) if line.startswith("# by hand"))
    text = "\n".join(line.removeprefix("#") for line in lines[start + 1 :])
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines()]


def made(path) -> dict[str, list[str]]:
    """Rule -> the patterns of its outputs; of a rule that is named as it is made, its file's."""
    rules = re.split(r"^ *rule (\w*):$|^ *rule():$", path.read_text(), flags=re.MULTILINE)
    found = {}
    for name, body in zip(rules[1::3], rules[3::3], strict=True):
        output = re.search(r"^( +)output:\n((?:\1 .*\n|\n)+)", body, flags=re.MULTILINE)
        if output is not None:
            found[name or path.stem] = re.findall(r'"([^"]+)"', output[2]) or ["FOLDER/FILE"]
    return found


def matches(pattern: str, target: str) -> bool:
    parts = re.split(r"\{\w+\}", pattern)
    return re.fullmatch("[^/]+".join(map(re.escape, parts)), target) is not None


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_rule_has_a_command_by_hand(path) -> None:
    """A command names a file of the rule, or the module or command that the rule's name says."""
    rules, shown = made(path), set()
    for words in commands(path):
        if words[0] == "snakemake":
            fitting = [name for name in rules if any(matches(p, words[-1]) for p in rules[name])]
        else:
            named = {word.removeprefix("threedrs.") for word in words[1:]}
            fitting = [name for name in rules if {name, name.partition("_")[0]} & named]
        assert len(fitting) == 1, words
        shown.update(fitting)
    assert shown == set(rules)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_rule_file_opens_with_names_and_paths(path) -> None:
    lines = header(path)
    for part in ("# in:", "# out:"):
        assert ENTRY.match(lines[lines.index(part) + 1]), part
    assert commands(path)


@pytest.mark.parametrize(
    "words",
    [words for path in RULES for words in commands(path)],
    ids=lambda words: " ".join(words)[:60],
)
def test_a_command_by_hand_exists_and_knows_its_options(words) -> None:
    options = [word for word in words if word.startswith("--")]
    if words[0] == "snakemake":
        assert options == ["--cores"]
        return
    if words[0] == "python":
        modules = [word for word in words if word.startswith("threedrs.")]
        sources = [importlib.util.find_spec(module).origin for module in modules]
        text = "".join(Path(source).read_text() for source in sources)
        assert all(f'"{option}"' in text for option in options)
        return
    assert words[0] == "threedrs"
    names = words[1 : 3 if words[1] == "instructions" else 2]
    told = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "200"})
    assert told.exit_code == 0
    assert all(option in told.output for option in options)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_what_a_user_writes_is_quoted_in_the_shell(path) -> None:
    """A checkpoint's path may hold a space."""
    for shell in re.findall(r'shell:\n((?: +".*"\n)+)', path.read_text()):
        assert not re.findall(r"\{(?:params|config|CONFIG)\b[^}:]*\}", shell)
