"""The GPU benchmarks run, small, on CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY / "src"), "CUDA_VISIBLE_DEVICES": ""}


def _run(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        env=os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_training_step(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    options = ["--size", "tiny", "--frames", "1", "--repeats", "1", "--out", str(out)]
    text = _run("benchmarks/training_step.py", *options, "--run", "sdpa:0:1,2", "--run", "sdpa:2:2")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["kept_layers"], row["pack"]) for row in rows] == [(0, 1), (0, 2), (2, 2)]
    assert rows[0]["tokens"] == 24 + 210 + 64
    assert rows[1]["tokens"] == 24 + 210 + 2 * 64
    assert all(row["samples_per_second"] > 0 for row in rows)
    assert "| sdpa | 0 | 2 |" in text


def test_zero3(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = ["--size", "tiny", "--frames", "1", "--steps", "1", "--pack", "2"]
    text = _run(*launcher, "benchmarks/zero3.py", *options, "--folder", str(tmp_path))
    report = json.loads(text[text.index("{\n") :])
    assert report["resumed_equal"]
    assert report["export_files"] == ["model.safetensors"]
    assert report["checkpoint_gb"] > 0
    assert (tmp_path / "model/config.json").is_file()
