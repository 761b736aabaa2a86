"""A repository without results for the doctor to look at, and one finding of a check."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from threedrs.config.load import load_config
from threedrs.doctor import Finding, Setting

ROOT = Path(__file__).resolve().parents[2]


def read_config() -> dict:
    """The repository's own configuration."""
    text = (ROOT / "config" / "config.yaml").read_text()
    return load_config(yaml.safe_load(text), ROOT / "workflow/schemas/config.schema.yaml")


def make_setting(config: dict, root: Path) -> Setting:
    """A repository of its own, without results."""
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root)
    (root / "results").mkdir()
    return Setting(config=config, root=root)


def only(check: Callable[[Setting], Any], setting: Setting, status: str) -> Finding:
    """Return the one finding of ``check`` that has ``status``; it is one line with a remedy."""
    (found,) = [finding for finding in check(setting) if finding.status == status]
    assert "\n" not in found.message + found.remedy
    assert bool(found.remedy) == (status != "ok")
    return found
