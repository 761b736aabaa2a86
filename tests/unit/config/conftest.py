"""The shipped configuration, with the tests' tiny student."""

import pytest

from fixtures.repository import ROOT
from fixtures.tiny_config import tiny_config


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(ROOT)
    return tiny_config()
