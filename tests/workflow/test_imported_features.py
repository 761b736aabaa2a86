"""The field's feature files through the whole workflow, and the 3D awareness of what they train."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fixtures.checkout import Checkout
from fixtures.stale_jobs import TRIVIAL, predicted
from threedrs.demo.write import demo_scenes
from threedrs.scannet.posed_images import export_posed_images

CONFIG = """
data: {demo: null, root: mine, scenes_per_shard: 3}
frames: {count: 3}
instructions: {benchmarks: [sqa3d]}
teacher: {name: import, weights: scannet/posed_images_3d_feature_vggt, other_frames: RULE}
model: {name: llava-video, size: tiny, path: null}
train: {max_steps: 2, global_batch: 4, pack: 4}
execution: {save_every: 2, log_every: 1}
runs: {baseline: null}
eval: {benchmarks: [sqa3d], max_new_tokens: 4, bootstrap: 100}
report: {baseline: 3drs}
"""


def write_published(mine: Path, rooms: Path) -> list[str]:
    """Write three train scenes whose features are of the student's, of other and of some frames."""
    shutil.copytree(rooms, mine)
    train = demo_scenes(5)["train"]
    scannet, random = mine / "scannet", np.random.default_rng(0)
    for scene in train:
        file = scannet / "posed_images_3d_feature_vggt" / scene / "vggt.npz"
        file.parent.mkdir(parents=True)
        # a 4:3 image of 12 x 16 patches behind five special tokens
        feature = random.normal(size=(1, 3, 5 + 192, 32)).astype(np.float32)
        np.savez_compressed(file, feature=feature, ps_idx=np.array(5))
    for scene in train[:2]:
        scan = scannet / "scans" / scene / f"{scene}.sens"
        export_posed_images(scan, scannet / "posed_images" / scene, stride=10)
    for image in sorted((scannet / "posed_images" / train[1]).glob("*.jpg"))[3:]:
        image.unlink()
    return train


@pytest.mark.slow
def test_imported_features_train_and_their_frames_are_said(checkout: Checkout, rooms: Path) -> None:
    train = write_published(checkout.folder / "mine", rooms)
    config, results = checkout.folder / "mine.yaml", checkout.folder / "results"
    config.write_text(CONFIG.replace("RULE", "by_frame"))
    said = checkout.snakemake("--cores", "2", "all", config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    other, alone = other_frames(checkout.folder, train[:2])
    assert train[1] in other
    counts = json.loads((results / "train/3drs/train.json").read_text())["teacher_frames"]
    notes = counts.pop("notes")
    assert counts == {
        "rule": "by_frame",
        "scenes": 3,
        "other_frames": len(other),
        "unproven": 1,
        "unsupervised": 0,
        "frames": 9,
        "frames_left_out": alone,
    }
    log = (results / "logs/train/3drs.log").read_text()
    assert log.count(f"train: {notes[0]}") == 1
    page = (results / "scenes/report.html").read_text()
    assert notes[0].replace("'", "&#39;") in page
    assert page.count("of its 3 are among them") == 2 * len(other)
    assert page.count("nothing says which frames the features are of") == 2  # table and picture
    said_so = f"The features of {len(other)} of 3 scenes are of other frames"
    assert said_so in (results / "report/index.html").read_text()
    the_rule_changes_the_training_alone(checkout)
    awareness_is_asked_for_and_then_shown(checkout, config)


def other_frames(folder: Path, scenes: list[str]) -> tuple[list[str], int]:
    """Return the scenes whose features are of other frames, and how many of theirs have none.

    The teacher took 3 of all images of the folder: the first, the middle (rounded down), the last.
    """
    other, alone = [], 0
    for scene in scenes:
        store = json.loads((folder / f"results/scenes/{scene}.zarr/zarr.json").read_text())
        student = store["attributes"]["frame_ids"]
        images = sorted((folder / "mine/scannet/posed_images" / scene).glob("*.jpg"))
        teacher = [int(images[i].stem) for i in (0, (len(images) - 1) // 2, len(images) - 1)]
        if teacher != student:
            other.append(scene)
            alone += len(set(student) - set(teacher))
    return other, alone


def the_rule_changes_the_training_alone(checkout: Checkout) -> None:
    config = checkout.folder / "published.yaml"
    config.write_text(CONFIG.replace("RULE", "as_published"))
    # The scene report says by the rule what is trained on.
    expected = {"run_config 3drs", "train 3drs", "scene_report"} | predicted(["3drs"], ["sqa3d"])
    expected |= TRIVIAL  # without a baseline this run tells the questions
    assert checkout.planned(config=config) == expected


def awareness_is_asked_for_and_then_shown(checkout: Checkout, config: Path) -> None:
    assert checkout.planned_jobs(config=config) == {}
    said = checkout.snakemake("--cores", "2", "awareness", config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    results = checkout.folder / "results"
    found = json.loads((results / "eval/3drs/awareness.json").read_text())
    assert list(found["scenes"]) == demo_scenes(5)["val"]
    assert all(row["pairs_across_frames"] > 0 for row in found["scenes"].values())
    assert -1 <= found["mean"]["across_frames"] <= 1
    assert checkout.planned(config=config) == {"build_report"}
    assert checkout.snakemake("--cores", "2", "all", config=config).returncode == 0
    assert 'href="#awareness"' in (results / "report/index.html").read_text()
