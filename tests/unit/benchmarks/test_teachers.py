"""The teachers' benchmarks run, at a small size."""

import json
from pathlib import Path

import pytest

from fixtures.benchmark_scripts import run_script


def test_feature_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_script(monkeypatch, "feature_store", "--quick", "--out", str(tmp_path))
    rows = [
        line.split("|")
        for line in (tmp_path / "feature_store.md").read_text().splitlines()
        if "float" in line
    ]
    assert len(rows) == 3
    assert all(float(cell) > 0 for row in rows for cell in row[3:5])


@pytest.mark.slow
def test_vggt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_script(monkeypatch, "vggt", "--quick", "--out", str(tmp_path))
    result = json.loads((tmp_path / "vggt.json").read_text())
    # 2 frames of 12x16 patches + 5, 384 channels, 2 + 2 x 2 blocks
    tokens = 197
    work = result["TFLOP of a scene"]
    assert work["linear"] == pytest.approx(24 * 384**2 * 2 * tokens * 6 / 1e12)
    assert work["attention over the scene"] == pytest.approx(4 * (2 * tokens) ** 2 * 384 * 2 / 1e12)
    reference = result["reference"]
    parts = [reference[name] for name in ("forward", "download", "deflate and write")]
    assert reference["a scene"] == pytest.approx(sum(parts))
    assert result["shard"]["a scene, steady state"] > 0
    assert result["bfloat16 against float32"]["relative difference"] == 0  # no GPU, no bfloat16
    assert "| reference: a scene |" in (tmp_path / "vggt.md").read_text()

    run_script(monkeypatch, "vggt", "--quick", "--forward", "--out", str(tmp_path))
    alone = json.loads((tmp_path / "vggt.json").read_text())
    assert (alone["picture"], alone["TFLOP of a scene"]) == (result["picture"], work)
    assert list(alone["stages"]) == ["forward"]
    assert alone["stages"]["forward"] > 0
