"""The demo's student as it is shipped: its size, its card, and that it finds objects."""

import re
from pathlib import Path

import pytest

from fixtures.repository import ROOT
from threedrs.demo.write import demo_scenes, write_demo
from threedrs.evaluation.predict_benchmark import predict_benchmark
from threedrs.evaluation.score import score_file
from threedrs.instructions.convert import convert
from threedrs.io.files import read_json
from threedrs.models.model_settings import PredictSettings
from threedrs.scannet.boxes import extract_boxes, read_boxes_file
from threedrs.scannet.layout import DataLayout
from threedrs.scenes.build import build_shard
from threedrs.scenes.frame_selection import SceneSettings

STUDENT = ROOT / "models" / "demo_student"
MOST_BYTES = 16_000_000


def test_the_folder_is_small_and_its_card_says_where_it_comes_from() -> None:
    assert sum(file.stat().st_size for file in STUDENT.iterdir()) <= MOST_BYTES
    card = (STUDENT / "README.md").read_text()
    (run,) = re.findall(r"config/demo_student\.yaml -- results/train/(\S+)/model\.json", card)
    assert f"\n  {run}:" in (ROOT / "config/demo_student.yaml").read_text()
    assert "license: apache-2.0" in card
    config = read_json(STUDENT / "config.json")
    assert (config["torch_dtype"], config["threedrs"]["teacher_channels"]) == ("bfloat16", 0)


@pytest.mark.slow
def test_it_finds_what_a_description_means(tmp_path: Path) -> None:
    """In a room that it has not seen, of twelve frames; chance finds one of fifteen."""
    layout, records = DataLayout(root=tmp_path / "data"), tmp_path / "scanrefer_val.jsonl"
    write_demo(layout.root, 2, 11, frames=12, processes=1)
    scans = [layout.scan(scene) for scene in demo_scenes(2)["val"]]
    extract_boxes(scans, tmp_path / "boxes.json")
    boxes = read_boxes_file(tmp_path / "boxes.json")
    frames = SceneSettings(stride=1, count=8)
    build_shard(scans, boxes, frames, tmp_path / "scenes", tmp_path / "shard.json", "val")
    convert("scanrefer", "val", layout, boxes, records)
    out = tmp_path / "predictions.jsonl"
    predict_benchmark(
        STUDENT, records, tmp_path / "scenes", PredictSettings(prompt="as_trained"), out
    )
    scores = score_file("scanrefer", out, tmp_path / "metrics.json", bootstrap=0, meteor=False)
    assert scores["metrics"]["acc@0.25"]["value"] >= 40
