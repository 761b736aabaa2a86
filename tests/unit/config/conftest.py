"""The shipped configuration, as the file has it."""

import pytest
import yaml

from fixtures.repository import ROOT


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(ROOT)
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
