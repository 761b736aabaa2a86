"""Own captures as a split of the workflow: stores, answers of every run, what is made again."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from fixtures.captures import room_capture, write_open3d
from fixtures.checkout import SMALL, Checkout, copy_finished
from fixtures.real_data import SHIPPED

pytestmark = pytest.mark.slow

ROOM = "my.lab-2"
QUESTIONS = [
    {"scene": ROOM, "question": "What is on the table?"},
    {"scene": "livingroom1", "ground": "the sofa"},
    {"scene": ROOM, "ground": "the table"},
]
JOBS = {
    *("build_captures mylab-000", "check_scenes mylab", "check_limit mylab"),
    *("scene_facts mylab-000", "scene_report"),
    *("answer_questions 3drs mylab", "answer_questions baseline mylab"),
}


def add_split(folder: Path) -> Path:
    """Put two captures and questions below the data root; return the configuration."""
    root = folder / "results/demo"
    living = root / "captures/livingroom1"
    shutil.copytree(SHIPPED / "livingroom1", living)
    (living / "intrinsic.txt").write_text("525 0 319.5\n0 525 239.5\n0 0 1\n")
    write_open3d(room_capture(12), root / "captures" / ROOM)
    (root / "mylab.jsonl").write_text("".join(json.dumps(line) + "\n" for line in QUESTIONS))
    config = yaml.safe_load(SMALL.read_text())
    config["data"]["scenes"] = {"mylab": {"captures": ["captures/*"], "questions": "mylab.jsonl"}}
    path = folder / "captures.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_captures_become_a_split_that_every_run_is_asked_about(
    finished: Checkout, tmp_path: Path
) -> None:
    trial = copy_finished(finished, tmp_path / "checkout")
    config = add_split(trial.folder)
    assert trial.planned(config=config) == JOBS  # nothing of the demo's is made again
    said = trial.snakemake("--cores", "2", "all", config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    assert f"own captures, mylab (2): livingroom1, {ROOM}" in said.stdout
    results = trial.folder / "results"
    for run in ("3drs", "baseline"):
        lines = (results / f"eval/{run}/mylab/answers.jsonl").read_text().splitlines()
        replies = [json.loads(line) for line in lines]
        for reply, asked in zip(replies, QUESTIONS, strict=True):
            assert reply.items() >= asked.items()
        assert isinstance(replies[0]["answer"], str)
        for reply in replies[1:]:
            assert reply["boxes"]
            assert (trial.folder / reply["image"]).is_file()
    page = (results / "scenes/report.html").read_text()
    for scene in ("livingroom1", ROOM):
        assert f'data-scene="{scene}" data-split="mylab"' in page
        assert (results / f"scenes/report/mylab-000/{scene}.jpg").is_file()
    assert trial.planned(config=config) == set()
    a_capture_that_cannot_be_used_is_one_line(trial, config)


def a_capture_that_cannot_be_used_is_one_line(trial: Checkout, config: Path) -> None:
    log = trial.folder / "results/demo/captures" / ROOM / "trajectory.log"
    log.write_text("no poses\n")
    said = trial.snakemake("--cores", "2", "answers", config=config)
    assert said.returncode == 1
    lines = [line for line in said.stdout.splitlines() if "1 of 2 mylab scenes" in line]
    assert len(lines) == 1, said.stdout
    assert ROOM in lines[0]
    assert "trajectory.log" in lines[0]
