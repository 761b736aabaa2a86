"""The doctor as a whole: every check has its finding, and the command its output and status."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from threedrs.cli import app
from threedrs.doctor.examine import examine
from threedrs.doctor.finding import Finding, Setting


def test_the_demo_needs_nothing_else(config: dict, setting: Setting) -> None:
    findings = {finding.check: finding for finding in examine(config, setting.root)}
    for check in ("data", "python", "disk", "file system", "clock", "stores", "results"):
        assert findings[check].status == "ok", findings[check]
    assert findings["stores"].message == findings["results"].message == "none yet"
    assert not list((setting.root / "results").iterdir())


def test_what_cannot_be_looked_at_is_a_finding(
    config: dict, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", "results/.doctor")

    monkeypatch.setattr(Path, "write_text", read_only)
    monkeypatch.setattr(shutil, "disk_usage", read_only)
    findings = {finding.check: finding for finding in examine(config, setting.root)}
    assert findings["disk"].message == (
        "results/.doctor: cannot be looked at (Read-only file system)"
    )
    assert "cannot be written, synced and renamed (Read-only" in findings["file system"].message
    assert {"data", "licences"} <= {*findings}


def test_results_that_link_to_nothing(config: dict, setting: Setting) -> None:
    setting.results.rmdir()
    setting.results.symlink_to("nowhere")
    findings = {finding.check: finding for finding in examine(config, setting.root)}
    assert {findings[check].status for check in ("disk", "file system")} == {"error"}
    assert "where results/ is a link, make its folder" in findings["disk"].remedy


def test_what_is_examined_is_known_without_packages_that_take_long() -> None:
    program = (
        "import sys, threedrs.doctor.examine; heavy = ('torch', 'transformers', 'scipy.stats', "
        "'scipy.optimize'); print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# The command


def run(*options: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["doctor", "--json", *options])
    rows = json.loads(result.output)
    assert all(set(row) == {"check", "status", "message", "remedy"} for row in rows)
    return result.exit_code, rows


def test_json_and_exit_status(config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(*arguments: object, **options: object) -> list[Finding]:
        assert options["slurm"] == ("error" in statuses)
        return [Finding(s, s, "do", "a") for s in statuses]

    monkeypatch.setattr("threedrs.doctor.examine.examine", examine)
    statuses: list[Any] = ["ok", "warning"]
    assert run() == (
        0,
        [{"check": "a", "status": s, "message": s, "remedy": "do"} for s in statuses],
    )
    statuses = ["warning", "error"]
    assert run("--slurm")[0] == 1
    result = CliRunner().invoke(app, ["doctor", "--slurm"])
    assert "error   " in result.output
    assert "error: do" in " ".join(result.output.split())


def test_a_wrong_configuration_is_a_finding(
    config: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    for text, words in (
        ("train: {pack: 3}\nfrmaes: {}", "frmaes is not a key; did you mean frames?"),
        ("a: [", "own.yaml: is not YAML"),
    ):
        file.write_text(text)
        code, rows = run("--configfile", str(file))
        assert code == 1
        assert {(row["check"], row["status"]) for row in rows} == {("config", "error")}
        assert words in rows[0]["message"]
    file.write_text("model: {size: 7b, path: no/model}")  # not there yet: the rest is looked at
    code, rows = run("--configfile", str(file))
    assert code == 1
    assert "model.path: no/model is not a folder" in rows[0]["message"]
    assert {"config", "python", "disk", "data", "licences"} <= {row["check"] for row in rows}
    monkeypatch.chdir(tmp_path)
    assert "run threedrs doctor from the repository's folder" in run()[1][0]["message"]
