"""The doctor names what is missing, with the remedy, and its estimates follow the shapes."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from threedrs.cli import app
from threedrs.config import load_config
from threedrs.demo.write import demo_scenes
from threedrs.doctor import FEATURE_BYTES, FRAME_BYTES, disk_needed, examine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "config" / "config.yaml").read_text()
    return load_config(yaml.safe_load(text), ROOT / "workflow/schemas/config.schema.yaml")


def test_the_demo_needs_nothing_else(config: dict) -> None:
    findings = {finding.check: finding for finding in examine(config, ROOT)}
    assert findings["data"].status == "ok"
    assert findings["python"].status == "ok"
    assert findings["disk"].status == "ok"


def test_disk_grows_with_frames_and_teachers(config: dict) -> None:
    before = disk_needed(config)
    config["frames"]["count"] += 1
    scenes = config["data"]["demo"]["scenes"]
    train = len(demo_scenes(scenes)["train"])
    assert disk_needed(config) - before == scenes * FRAME_BYTES + train * FEATURE_BYTES


def test_missing_data_is_named_file_by_file(config: dict, tmp_path: Path) -> None:
    config["data"] |= {"demo": None, "root": str(tmp_path)}
    (tmp_path / "scannet").mkdir()
    for split, scene in (("train", "scene0000_00"), ("val", "scene0001_00")):
        (tmp_path / "scannet" / f"scannetv2_{split}.txt").write_text(f"{scene}\n")
    lines = [f.message for f in examine(config, ROOT) if f.check == "data"]
    assert any("scene0000_00.sens: missing" in line for line in lines)
    assert any("scene0001_00_vh_clean_2.ply: missing" in line for line in lines)


def test_json_for_scripts(config: dict) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    checks = {row["check"]: row["status"] for row in yaml.safe_load(result.output)}
    assert checks["data"] == "ok"
