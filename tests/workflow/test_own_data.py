"""Data of the user's own, in the state that it is in: faults are survived and said."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from fixtures.checkout import Checkout
from threedrs.instructions.llava_format import load_records, write_llava
from threedrs.scannet.boxes import aligned_vertices, read_boxes_file
from threedrs.scannet.layout import DataLayout
from threedrs.scannet.sens import SensReader, SensWriter
from threedrs.scenes.store import SceneStore

# Every folder and file has a name of the user's own.
OWN_NAMES = {
    "scannet/scans": "raw",
    "scannet/mask": "proposals",
    "scannet/scannetv2-labels.combined.tsv": "labels.tsv",
    "scannet/scannetv2_train.txt": "lists/train.txt",
    "scannet/scannetv2_val.txt": "lists/val.txt",
    "scannet/scannetv2_test.txt": "lists/test.txt",
    "benchmark": "annotations",
}
CONFIG = """
data:
  {demo: null, root: mine, scenes_per_shard: 2, max_bad_fraction: 0.5, scans: raw, masks: proposals,
   labels: labels.tsv, splits: "lists/{split}.txt", benchmark: annotations,
   selected_frames: chosen.json, voxels: voxels.pkl}
frames: {strategy: coverage90, count: 3}
instructions:
  benchmarks: [scanrefer, scan2cap]
  mixes:
    level: {balance: temperature, temperature: 2, size: 60, caps: {max_per_answer: 20}}
teacher: {scenes_per_shard: 2}
model: {name: llava-video, size: tiny, path: null}
train: {mix: level, max_steps: 2, global_batch: 4, pack: 2}
execution: {save_every: 2, log_every: 1}
runs: {baseline: null}
eval: {benchmarks: [scanrefer, scan2cap], max_new_tokens: 4, bootstrap: 100}
report: {baseline: 3drs}
"""


READY = """
    train: {scanrefer: scanrefer_train_llava_style.json, scan2cap: scan2cap_train_llava_style.json}
    val: '{benchmark}_val_llava_style.json'"""
CHOSEN, VOXELS = "scene0000_00", "scene0002_00"  # train: what the two files of frames speak of
FOREIGN = "scene0001_00"  # train: its proposals are of another mesh
UNBOXED = "scene0003_00"  # val: it has no proposals
LOST = "scene0004_00"  # val: no frame has a pose


def spoil(mine: Path) -> Path:
    """Make three of five scans what users' scans may be; return the .sens without poses."""
    (mine / "lists").mkdir()
    for name, own in OWN_NAMES.items():
        if (mine / name).exists():
            (mine / name).rename(mine / own)
    (mine / "proposals" / f"{UNBOXED}.mask.npz").unlink()
    foreign = scipy.sparse.csr_matrix(np.ones((2, 7)))
    scipy.sparse.save_npz(mine / "proposals" / f"{FOREIGN}.mask.npz", foreign)
    lost = mine / "raw" / LOST / f"{LOST}.sens"
    whole = shutil.copy2(lost, mine / "whole.sens")
    with SensReader(whole) as reader, SensWriter.create(lost, reader.header) as writer:
        for frame in range(len(reader)):
            writer.add(np.full((4, 4), -np.inf), reader.color_bytes(frame), reader.depth(frame))
    return lost


def write_frame_files(mine: Path) -> tuple[list[int], int]:
    """Write both files; return the frames that reach 90 % in one, and the voxels in the other."""
    with SensReader(mine / f"raw/{CHOSEN}/{CHOSEN}.sens") as reader:
        third, first, second = np.flatnonzero(reader.valid[::10])[:3] * 10
    files = [f"data/{CHOSEN}/{frame:05d}.jpg" for frame in (first, third, second)]
    entry = {"video_id": f"scannet/{CHOSEN}", "frame_files": files}
    counts = {"voxel_nums": [60, 30, 10], "num_all_voxels": 100}
    (mine / "chosen.json").write_text(json.dumps([entry | counts]))
    scan = DataLayout(root=mine, scans="raw").scan(VOXELS)
    voxels = {tuple(row) for row in np.rint(aligned_vertices(scan) / 0.1).astype(int).tolist()}
    half = sorted(voxel for voxel in voxels if voxel[0] > 0)
    (mine / "voxels.pkl").write_bytes(pickle.dumps({VOXELS: half}))
    return [int(third), int(first)], len(half)


@pytest.mark.slow
def test_bad_scans_and_missing_detector_boxes_stop_nothing_and_are_said(
    checkout: Checkout, rooms: Path
) -> None:
    mine, config = checkout.folder / "mine", checkout.folder / "mine.yaml"
    shutil.copytree(rooms, mine)
    lost = spoil(mine)
    frames, voxels = write_frame_files(mine)
    config.write_text(CONFIG)
    said = checkout.snakemake("--cores", "2", "all", config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    assert said.stdout.count("Where scenes come from") == 1
    assert f"proposals: 1; 1 lack it: {UNBOXED}" in said.stdout
    results = checkout.folder / "results"
    logs = "".join(path.read_text() for path in (results / "logs").rglob("*.log"))
    assert f"{LOST}: left out:" in logs
    scene_report_says_all(results)
    assert SceneStore.open(results / f"scenes/{CHOSEN}.zarr").frame_ids == frames
    seen = SceneStore.open(results / f"scenes/{VOXELS}.zarr").attributes["coverage"]
    assert seen["voxels"] == voxels
    mix_leaves_out(results)
    for benchmark in ("scanrefer", "scan2cap"):
        scores_leave_out(results, benchmark)
    page = (results / "report" / "index.html").read_text()
    assert "Some questions are excluded" in page
    none_may_be_left_out(checkout)
    a_scan_put_right_is_used(checkout, config, lost)
    ready_files_give_the_same(checkout, results)


def scene_report_says_all(results: Path) -> None:
    page = (results / "scenes" / "report.html").read_text()
    assert f"Evaluation scenes without detector boxes (1): {UNBOXED}." in page
    assert f"no proposals ({UNBOXED}.mask.npz): no pred boxes" in page
    assert "<h2>Left out</h2>" in page
    assert "2 scans cannot be used" in page
    assert f"<td>{FOREIGN}</td><td>train</td>" in page
    assert "proposals and mesh are not of the same scan version" in page
    assert f"<td>{LOST}</td><td>val</td>" in page
    assert f"scene {LOST} has no candidate frame with a valid pose (44 frames" in page
    sources = json.loads((results / "scenes" / "sources.json").read_text())
    assert sources["splits"]["val"][UNBOXED]["pred"] is None
    parts = [json.loads(p.read_text()) for p in results.glob("scenes/report/*/scenes.json")]
    rows = [row for part in parts for row in part["scenes"]]
    assert [row["strategy"] for row in rows] == ["coverage90"] * 3
    assert all(row["coverage"] > 0.1 for row in rows)
    assert not (results / "scenes" / f"{LOST}.zarr").exists()
    skipped = [
        row["scene"]
        for path in results.glob("features/*/*/manifest.json")
        for row in json.loads(path.read_text())["skipped"]
    ]
    assert skipped == [FOREIGN]


def mix_leaves_out(results: Path) -> None:
    summary = json.loads((results / "instructions/mixes/level.summary.json").read_text())
    assert (summary["samples"], summary["balance"]) == (60, "temperature")
    (row,) = summary["left_out"]["scenes"]
    assert row["scene"] == FOREIGN
    assert "not of the same scan version" in row["reason"]
    assert summary["left_out"]["records"] == row["records"] > 0
    mixed = load_records(results / "instructions" / "mixes" / "level.jsonl")
    assert FOREIGN not in {record.scene for record in mixed}


def scores_leave_out(results: Path, benchmark: str) -> None:
    folder = results / "eval" / "3drs" / benchmark
    records = list(load_records(results / "instructions" / f"{benchmark}_val.jsonl"))
    lost = [record for record in records if record.scene == LOST]
    assert lost
    metrics = json.loads((folder / "metrics.json").read_text())
    meta = json.loads((folder / "predictions.meta.json").read_text())
    assert metrics["n"] == meta["n"] == len(records) - len(lost)
    (row,) = metrics["left_out"]["scenes"]
    assert metrics["left_out"] == meta["left_out"] == {"questions": len(lost), "scenes": [row]}
    assert (row["scene"], row["questions"]) == (LOST, len(lost))
    table = (results / "report" / "summary.md").read_text()
    assert f"{benchmark} {metrics['n']} ({len(lost)} more left out" in table


def none_may_be_left_out(checkout: Checkout) -> None:
    """With `on_bad_scene: fail` the same scan ends the run, in one line."""
    config = checkout.folder / "strict.yaml"
    config.write_text(CONFIG.replace("max_bad_fraction: 0.5", "on_bad_scene: fail"))
    jobs = checkout.planned_jobs(config=config)
    assert jobs == {"check_limit": 2, "all": 1}
    target = "results/scenes/limit/val.json"
    said = checkout.snakemake("--cores", "1", target, "--quiet", config=config)
    assert said.returncode != 0
    assert "1 of 2 val scenes cannot be used (data.on_bad_scene: fail), e.g. scene0004_00" in (
        said.stdout
    )
    assert "Traceback" not in said.stdout
    assert "Where scenes come from" not in said.stdout


def a_scan_put_right_is_used(checkout: Checkout, config: Path, lost: Path) -> None:
    shutil.copy(checkout.folder / "mine" / "whole.sens", lost)
    jobs = checkout.planned_jobs(config=config)
    assert jobs["build_scenes"] == 1
    assert jobs["predict"] == 2
    assert not {"boxes", "convert_instructions", "balance", "extract_features", "train"} & set(jobs)
    target = "results/scenes/left_out/val.json"
    said = checkout.snakemake("--cores", "1", target, config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    results = checkout.folder / "results"
    assert json.loads((results / "scenes" / "left_out" / "val.json").read_text())["left_out"] == []
    assert (results / "scenes" / f"{LOST}.zarr").is_dir()


def ready_files_give_the_same(checkout: Checkout, results: Path) -> None:
    """The records and boxes of the run above, handed over as processed files, come out again."""
    mine = checkout.folder / "mine"
    before = {path.name: path.read_text() for path in (results / "boxes").glob("*.json")}
    for split in ("train", "val"):
        boxes: dict = {}
        for path in sorted((results / "boxes").glob(f"{split}-*.json")):
            boxes |= read_boxes_file(path)
        for name in ("gt", "pred"):
            value = {
                scene: {
                    "boxes": [[float(str(number)) for number in box] for box in sets[name].boxes],
                    "ids": sets[name].ids.tolist(),
                    "labels": list(sets[name].labels),
                }
                for scene, sets in boxes.items()
            }
            (mine / f"{split}_{name}_box.json").write_text(json.dumps(value))
    names = [f"{name}_{split}" for name in ("scanrefer", "scan2cap") for split in ("train", "val")]
    records = {name: results / "instructions" / f"{name}.jsonl" for name in names}
    expected = {name: path.read_text() for name, path in records.items()}
    for name, path in records.items():
        write_llava(mine / f"{name}_llava_style.json", load_records(path))
    shutil.rmtree(mine / "annotations")
    config = checkout.folder / "ready.yaml"
    config.write_text(
        CONFIG.replace("instructions:", f"instructions:\n  ready: {READY}")
        + "boxes: {ready: '{split}_{set}_box.json'}\n"
    )
    targets = [f"results/boxes/{name}" for name in before]
    targets += [path.relative_to(checkout.folder).as_posix() for path in records.values()]
    # The report's rule has the pattern of the box files among its parameters.
    targets.append("results/scenes/report.html")
    said = checkout.snakemake("--cores", "2", *targets, config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    for name, text in expected.items():
        assert records[name].read_text() == text
    for name, text in before.items():
        old, new = json.loads(text), json.loads((results / "boxes" / name).read_text())
        assert old["scenes"].items() <= new["scenes"].items()
