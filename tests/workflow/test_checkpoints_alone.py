"""Checkpoints are evaluated as they are: no training, no training scenes, nothing copied."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from snakemake.utils import update_config

from fixtures.checkout import SMALL, Checkout, copy_finished
from fixtures.forked_jobs import forked_python
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings

CHANGES = {
    "runs": {
        "3drs": None,
        "baseline": None,
        "start": {"checkpoint": "initial"},
        "published": {"checkpoint": "checkpoints/trained"},
        "zero-shot": {"checkpoint": "checkpoints/base"},
    },
    "eval": {"benchmarks": ["scanrefer", "sqa3d"], "max_new_tokens": 4, "limit": 6},
    "report": {"baseline": "zero-shot"},
}
# What a finished demo has of its trainings, and these runs must not ask for.
TRAINING = ("features", "instructions/mixes", "instructions/*_train.*", "boxes/train-*")
TRAINING += ("scenes/shards/train-*", "train/*/model")


def write_config(folder: Path) -> Path:
    config = yaml.safe_load(SMALL.read_text())
    update_config(config, CHANGES)
    path = folder / "alone.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def write_models(folder: Path) -> None:
    """Write a student as training leaves it, and one without heads, as base models are."""
    for name, family in (("trained", "llava-video"), ("base", "qwen2-vl")):
        student, tokenizer = load_student(ModelSettings(name=family, seed=1))
        save_student(student, tokenizer, folder / name)
    weights = folder / "base/model.safetensors"
    kept = {n: v for n, v in load_file(weights).items() if not n.startswith("ground_head")}
    save_file(kept, weights, metadata={"format": "pt"})
    config = json.loads((folder / "base/config.json").read_text())
    del config["threedrs"]
    (folder / "base/config.json").write_text(json.dumps(config))


@pytest.mark.slow
def test_checkpoints_go_to_the_report_without_training(
    finished: Checkout, checkout: Checkout, tmp_path: Path
) -> None:
    write_models(checkout.folder / "checkpoints")
    planned = checkout.planned(config=write_config(checkout.folder))
    assert not [job for job in planned if "train" in job], "from a fresh checkout on"
    assert sum(job.startswith("predict ") for job in planned) == 6

    models = checkout.folder / "checkpoints"
    checkout = copy_finished(finished, tmp_path / "finished")
    models.rename(checkout.folder / "checkpoints")
    results = checkout.folder / "results"
    for pattern in (*TRAINING, "train", "eval", "report"):
        for path in list(results.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    config = write_config(checkout.folder)
    said = checkout.snakemake("--cores", "2", "all", config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    assert not [path for pattern in TRAINING for path in results.glob(pattern)]
    summary = json.loads((results / "report/summary.json").read_text())
    runs = {name: run["benchmarks"] for name, run in summary["runs"].items()}
    assert runs["start"]["scanrefer"]["metrics"]["acc@0.25"]["value"] is not None
    assert runs["published"]["sqa3d"]["limit"] == {"questions": 6, "of": 8}
    unanswered = runs["zero-shot"]["scanrefer"]
    assert unanswered["unanswered"] == "the model has no grounding head"
    assert unanswered["n"] == 0
    assert unanswered["metrics"]["acc@0.25"]["value"] is None
    assert runs["zero-shot"]["sqa3d"]["n"] == 6
    table = (results / "report/summary.md").read_text()
    assert "zero-shot does not answer scanrefer: the model has no grounding head" in table
    assert "not a score of the benchmark" in table
    rows = (results / "report/summary.csv").read_text()
    assert "sqa3d: the first 6 questions only, not a score" in rows
    page = (results / "report/index.html").read_text()
    assert "These are not scores of the benchmarks" in page
    assert "not answered" in page
    assert "not trained here" in page
    another_answer_follows_another_file(checkout, config)
    one_command(checkout)


def another_answer_follows_another_file(checkout: Checkout, config: Path) -> None:
    """A checkpoint that changes makes its own predictions stale and no others."""
    weights = checkout.folder / "checkpoints/trained/model.safetensors"
    tensors = {name: value * 1.5 for name, value in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    stale = {job for job in checkout.planned(config=config) if job.startswith("predict")}
    assert stale == {"predict published scanrefer", "predict published sqa3d"}


def one_command(checkout: Checkout) -> None:
    page = checkout.folder / "results/report/index.html"
    before = page.read_bytes()
    command = [
        forked_python(),
        "-m",
        "threedrs",
        "eval",
        "checkpoints/base",
        "--on",
        "sqa3d,scanrefer",
    ]
    command += ["--limit", "5", "--configfile", "alone.yaml"]
    said = subprocess.run(
        command,
        cwd=checkout.folder,
        env=os.environ | {"PYTHONPATH": str(checkout.folder / "src")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-4000:]
    assert "run base-first5, percent, the first 5 of" in " ".join(said.stdout.split())
    assert "with a limit on the questions this is not a score of the benchmark" in said.stdout
    assert "acc@0.25 is unavailable: not answered: the model has no grounding head" in said.stdout
    folder = checkout.folder / "results/eval/base-first5"
    assert json.loads((folder / "sqa3d/metrics.json").read_text())["n"] == 5
    assert page.read_bytes() == before
