"""The benchmark of choosing frames runs, on a scan of few candidates."""

import re
import runpy
from pathlib import Path

import pytest

from fixtures.repository import ROOT


@pytest.mark.slow
def test_frames_are_chosen_from_a_made_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    # By its path: a package of the same name is often installed beside pytest.
    script = runpy.run_path(str(ROOT / "benchmarks/coverage.py"))
    script["write_scan"](tmp_path, 5)
    script["choose"](tmp_path, "coverage")
    told = capsys.readouterr().out
    found = re.search(r"(\d+) frames of (\d+) looked at cover (\d+) of (\d+)", told)
    assert found is not None
    chosen, looked_at, covered, coverable = map(int, found.groups())
    assert (chosen, looked_at) == (5, 5)
    assert 1000 < covered == coverable
