"""The benchmark of inference runs, at a small size, and its check holds."""

from pathlib import Path

import pytest

from fixtures.benchmark_scripts import run_script


def test_shared_answers_equal_those_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "inference.md"
    sizes = ["--size", "tiny", "--frames", "1", "--repeats", "1", "--questions", "1", "5"]
    run_script(monkeypatch, "inference", *sizes, "--tokens", "3", "--out", str(out))
    lines = out.read_text().splitlines()
    assert "- answers equal to one at a time, token for token: 5 of 5 looked at" in lines
    rows = [line.split("|") for line in lines if line.startswith(("| 1", "| 5"))]
    assert len(rows) == 2
    # Not the time of a token step: it is a difference, which a busy machine can turn round.
    for count, row in zip((1, 5), rows, strict=True):
        whole, rate = float(row[2]), float(row[7])
        assert rate * whole == pytest.approx(count, abs=0.001 * (rate + 10 * whole))  # digits shown
