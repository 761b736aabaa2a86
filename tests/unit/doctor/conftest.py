"""What the doctor looks at: the own configuration, and a repository without results."""

from pathlib import Path

import pytest

from fixtures.doctor_setting import make_setting, read_config
from fixtures.repository import ROOT
from threedrs.doctor.finding import Setting


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(ROOT)
    return read_config()


@pytest.fixture
def setting(config: dict, tmp_path: Path) -> Setting:
    return make_setting(config, tmp_path)
