"""Data of the user's own, in the state that it is in: faults are survived and said."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Checkout

from threedrs.demo.write import write_demo
from threedrs.instructions.llava import load_records, write_llava
from threedrs.scannet.boxes import read_boxes_file

CONFIG = """
data: {demo: null, root: mine, scenes_per_shard: 2}
frames: {strategy: coverage90, count: 3}
instructions:
  mixes:
    level: {balance: temperature, temperature: 2, size: 60, caps: {max_per_answer: 20}}
teacher: {scenes_per_shard: 2}
train: {mix: level, max_steps: 2, global_batch: 4, pack: 2, save_every: 2, log_every: 1}
eval: {benchmarks: [scanrefer, scan2cap], max_new_tokens: 4, bootstrap: 100}
report: {examples: 2}
"""


@pytest.mark.slow
def test_coverage_with_detector_boxes_missing_for_one_scene(checkout: Checkout) -> None:
    write_demo(checkout.folder / "mine", 5, 3)
    (checkout.folder / "mine" / "scannet" / "mask" / "scene0004_00.mask.npz").unlink()
    config = checkout.folder / "mine.yaml"
    config.write_text(CONFIG)
    said = checkout.snakemake("--cores", "2", "all", config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    results = checkout.folder / "results"
    page = (results / "scenes" / "report.html").read_text()
    assert "Evaluation scenes without detector boxes (1): scene0004_00." in page
    assert "no proposals (scene0004_00.mask.npz): no pred boxes" in page
    sources = json.loads((results / "scenes" / "sources.json").read_text())
    assert sources["splits"]["val"]["scene0004_00"]["proposals"] is False
    (part,) = (results / "scenes" / "report").glob("val-*")
    rows = json.loads((part / "scenes.json").read_text())["scenes"]
    assert [row["strategy"] for row in rows] == ["coverage90"] * 2
    assert all(row["coverage"] > 0.1 for row in rows)
    summary = json.loads((results / "instructions/mixes/level.summary.json").read_text())
    assert (summary["samples"], summary["balance"]) == (60, "temperature")
    for benchmark in ("scanrefer", "scan2cap"):
        metrics = results / "eval" / "3drs" / benchmark / "metrics.json"
        records = list(load_records(results / "instructions" / f"{benchmark}_val.jsonl"))
        assert json.loads(metrics.read_text())["n"] == len(records)
    ready_files_give_the_same(checkout, results)


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
            (mine / "scannet" / f"scannet_{split}_{name}_box.json").write_text(json.dumps(value))
    records = {name: results / "instructions" / f"{name}_train.jsonl" for name in ("scanrefer",)}
    expected = {name: path.read_text() for name, path in records.items()}
    array = checkout.folder / "train.json"
    files = [results / "instructions" / f"{name}_train.jsonl" for name in ("scanrefer", "scan2cap")]
    write_llava(array, [record for path in files for record in load_records(path)])
    shutil.rmtree(mine / "benchmark" / "scanqa")
    config = checkout.folder / "ready.yaml"
    config.write_text(
        CONFIG.replace("instructions:", "instructions:\n  ready: {train: train.json}")
        + "boxes: {ready: 'scannet/scannet_{split}_{set}_box.json'}\n"
    )
    targets = [f"results/boxes/{name}" for name in before]
    targets += [path.relative_to(checkout.folder).as_posix() for path in records.values()]
    said = checkout.snakemake("--cores", "2", *targets, config=config)
    assert said.returncode == 0, said.stdout[-6000:]
    for name, text in expected.items():
        assert records[name].read_text() == text
    for name, text in before.items():
        old, new = json.loads(text), json.loads((results / "boxes" / name).read_text())
        assert new["scenes"] == old["scenes"]
