"""The whole workflow on the published data folder, against the same rooms as scans."""

import json
from pathlib import Path

import pytest
import yaml

from fixtures.checkout import SMALL, Checkout
from fixtures.published_files import published_layout
from threedrs.demo.published_layout import publish
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.precomputed import export_features

LOSSES = ("loss", "text", "grounding", "supervision")


@pytest.fixture
def published(finished: Checkout, checkout: Checkout) -> Path:
    """A configuration of the finished demo's rooms in their published form."""
    scans, root = finished.folder / "results/demo", checkout.folder / "published"
    publish(scans, root)
    for shard in (finished.folder / "results/features/vggt-tiny").glob("*.zarr"):
        store = FeatureStore.open(shard)
        for scene in store.scenes:
            features = root / "scannet/posed_images_3d_feature_vggt"
            export_features(store, scene, features / scene / "vggt.npz")
    # All of the small demo but for its data; one run, and two of the benchmarks to ask.
    config = yaml.safe_load(SMALL.read_text())
    for layer in (
        yaml.safe_load((checkout.folder / "config/published.yaml").read_text()),
        {"data": {"root": "published"}, "runs": {"baseline": None}},
        {"eval": {"benchmarks": ["scanrefer", "scan2cap"]}},
        {"report": {"baseline": "3drs"}},
    ):
        for section, keys in layer.items():
            config[section] = config.get(section, {}) | keys
    path = checkout.folder / "small_published.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def rows(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "results/train/3drs/log.jsonl").read_text().splitlines()
    return [{name: row[name] for name in LOSSES} for row in map(json.loads, lines)]


def answers(path: Path) -> list[list[object]]:
    lines = map(json.loads, path.read_text().splitlines())
    return [[row.get(key) for key in ("id", "prediction", "scores")] for row in lines]


@pytest.mark.slow
def test_the_published_folder_gives_the_same_records_and_losses(
    finished: Checkout, checkout: Checkout, published: Path
) -> None:
    said = checkout.snakemake("--cores", "2", "all", config=published)
    assert said.returncode == 0, said.stdout[-6000:]
    for line in ("axis alignment", "candidate frames"):
        assert f"{line}  " in said.stdout
    assert "gt boxes                scannet_train_gt_box.json" in said.stdout
    assert "not there, and not needed for these records" in said.stdout
    for name in ("scanrefer_train", "multi3drefer_train", "scan2cap_train", "scanqa_train",
                 "sqa3d_train", "scanrefer_val", "scan2cap_val"):  # fmt: skip
        path = f"results/instructions/{name}.jsonl"
        assert (checkout.folder / path).read_text() == (finished.folder / path).read_text()
    assert rows(checkout.folder) == rows(finished.folder)
    assert len(rows(checkout.folder)) > 2
    for benchmark in ("scanrefer", "scan2cap"):
        path = f"results/eval/3drs/{benchmark}/predictions.jsonl"
        # Not the true boxes of val scenes, whose last digit is of the float32 point cloud.
        assert answers(checkout.folder / path) == answers(finished.folder / path)
    assert (checkout.folder / "results/report/index.html").is_file()
    sources = json.loads((checkout.folder / "results/scenes/sources.json").read_text())
    layout = published_layout(checkout.folder / "published")
    for split, scenes in sources["splits"].items():
        assert sorted(scenes) == layout.scenes(split)
        assert {served["frames"] for served in scenes.values()} == {"posed_images"}
