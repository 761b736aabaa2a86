"""The benchmark of inference runs, at a small size, and its check holds."""

import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.repository import ROOT

pytestmark = pytest.mark.slow

BENCHMARK = ROOT / "benchmarks" / "inference.py"


def test_shared_answers_equal_those_one_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "inference.md"
    command = [sys.executable, str(BENCHMARK), "--size", "tiny", "--frames", "1", "--repeats", "1"]
    command += ["--questions", "1", "5", "--tokens", "3", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = out.read_text().splitlines()
    assert "- answers equal to one at a time, token for token: 5 of 5 looked at" in lines
    rows = [line.split("|") for line in lines if line.startswith(("| 1", "| 5"))]
    assert len(rows) == 2
    assert all(float(row[6]) > 0 for row in rows)
