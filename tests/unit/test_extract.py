"""Extraction of a shard: values, what is kept, what a kill costs, and errors."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from threedrs.cli.features import app
from threedrs.errors import ConfigError, DataError, StoreError
from threedrs.scannet.boxes import BoxSet
from threedrs.scenes.writer import SceneContents, write_scene_store
from threedrs.teachers import extract, registry
from threedrs.teachers.extract import TeacherSettings, extract_shard

from threedrs.teachers.preprocess import preprocess_jpeg
from threedrs.teachers.store import FeatureStore
from threedrs.teachers.verify import verify_store

TINY = TeacherSettings(name="vggt-tiny")


def payload(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(stream, format="JPEG")
    return stream.getvalue()


def write_scene(folder: Path, number: int, jpegs: list[bytes] | None = None) -> Path:
    """Write a scene store whose pictures are ``jpegs`` (two made ones); return its path."""
    jpegs = jpegs or [payload(10 * number), payload(10 * number + 1)]
    scene, V = f"scene{number:04d}_00", len(jpegs)
    none = BoxSet(boxes=np.zeros((0, 6), np.float32), ids=np.zeros(0, np.int32), labels=())
    masks = np.zeros((0, V, 27, 27), bool), np.zeros((0, V, 14, 14), bool)
    contents = SceneContents(
        rgb=np.zeros((V, 384, 384, 3), np.uint8),
        jpegs=jpegs,
        depth=np.zeros((V, 384, 384), np.uint16),
        poses=np.tile(np.eye(4), (V, 1, 1)),
        depth_intrinsic=np.eye(4),
        depth_size=(64, 48),
        patch_xyz=np.zeros((V, 14, 14, 3), np.float32),
        boxes={"gt": none, "pred": none},
        masks={"gt": masks, "pred": masks},
        attributes={
            "scene": scene,
            "split": "train",
            "frame_ids": [7 * frame for frame in range(V)],
            "invalid_depth": "reference",
        },
    )
    write_scene_store(folder / f"{scene}.zarr", contents)
    return folder / f"{scene}.zarr"


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    return [write_scene(tmp_path / "scenes", number) for number in range(3)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "features" / "vggt-tiny" / "train-000.zarr"


class Calls:
    """Counts the model's passes; ``fail_at``: the pass that raises, as a kill would end the run."""

    def __init__(self) -> None:
        self.count = 0
        self.fail_at: int | None = None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()

    def counted(model: nn.Module, images: torch.Tensor, *, grid: int | str) -> torch.Tensor:
        calls.count += 1
        if calls.count == calls.fail_at:
            raise KeyboardInterrupt
        return scene_features(model, images, grid=grid)

    monkeypatch.setattr(extract, "scene_features", counted)
    return calls


def test_values_are_the_pooled_features(scenes: list[Path], out: Path) -> None:
    manifest = extract_shard(scenes, TINY, out)
    store = FeatureStore.open(out)
    assert manifest == store.manifest
    assert store.scenes == ["scene0000_00", "scene0001_00", "scene0002_00"]
    assert store.channels == 768
    assert verify_store(out) == []
    model = registry.get_teacher("vggt-tiny").load(None, 0)
    images = [torch.from_numpy(preprocess_jpeg(payload(s), width=224)) for s in (10, 11)]
    with torch.no_grad():
        patches = model(torch.stack(images)[None])[0].reshape(2, 12, 16, 768)
    expected = np.empty((2, 14, 14, 768))
    for row in range(14):  # adaptive pooling: cell i averages floor(i n / 14) to ceil((i+1) n / 14)
        for column in range(14):
            top, bottom = row * 12 // 14, -(-(row + 1) * 12 // 14)
            left, right = column * 16 // 14, -(-(column + 1) * 16 // 14)
            expected[:, row, column] = patches[:, top:bottom, left:right].double().mean((1, 2))
    found = store.features("scene0001_00")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=2e-3)
    assert store.frame_ids("scene0001_00") == [0, 7]
    assert expected.std() > 0.1


def test_full_grid_is_the_teachers_own(scenes: list[Path], out: Path) -> None:
    extract_shard(scenes[:1], TeacherSettings(name="vggt-tiny", grid="full"), out)
    assert FeatureStore.open(out).features("scene0000_00").shape == (2, 12, 16, 768)


def test_two_runs_are_equal_and_the_seed_matters(
    scenes: list[Path], out: Path, tmp_path: Path
) -> None:
    first = extract_shard(scenes[:1], TINY, out)["scenes"]["scene0000_00"]
    again = extract_shard(scenes[:1], TINY, tmp_path / "b.zarr")["scenes"]["scene0000_00"]
    other = extract_shard(
        scenes[:1], TeacherSettings(name="vggt-tiny", seed=1), tmp_path / "c.zarr"
    )["scenes"]["scene0000_00"]
    assert first["features_sha256"] == again["features_sha256"] != other["features_sha256"]


def test_unchanged_scenes_are_kept_and_the_manifest_with_them(
    scenes: list[Path], out: Path, calls: Calls
) -> None:
    extract_shard(scenes, TINY, out)
    before = (out / "manifest.json").read_bytes()
    (out / "manifest.json").unlink()
    extract_shard(scenes, TINY, out)
    assert calls.count == 3
    assert (out / "manifest.json").read_bytes() == before


def test_a_killed_run_loses_only_the_scene_it_was_at(
    scenes: list[Path], out: Path, calls: Calls
) -> None:
    calls.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        extract_shard(scenes, TINY, out)
    with pytest.raises(StoreError, match="unfinished"):
        FeatureStore.open(out)
    (out / ".scene0002_00.1.tmp").mkdir()  # what a harder kill leaves
    extract_shard(scenes, TINY, out)
    assert calls.count == 4
    assert verify_store(out) == []
    assert not list(out.glob(".*"))


def test_what_changed_is_done_again(scenes: list[Path], out: Path, calls: Calls) -> None:
    extract_shard(scenes, TINY, out)
    write_scene(scenes[1].parent, 1, [payload(98), payload(99)])
    extract_shard(scenes, TINY, out)
    assert calls.count == 4  # new pictures: that scene
    extract_shard(scenes, TeacherSettings(name="vggt-tiny", seed=5), out)
    assert calls.count == 7  # new weights: all
    extract_shard(scenes, TeacherSettings(name="vggt-tiny", seed=5, grid="full"), out)
    assert calls.count == 10  # new grid: all


def test_a_damaged_scene_is_done_again(
    scenes: list[Path], out: Path, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    extract_shard(scenes, TINY, out)
    (path,) = (file for file in (out / "scene0001_00/features/c").rglob("*") if file.is_file())
    broken = bytearray(path.read_bytes())
    broken[500] ^= 16
    path.write_bytes(broken)
    with caplog.at_level(logging.WARNING):
        extract_shard(scenes, TINY, out)
    assert calls.count == 4
    assert "scene0001_00: computed again" in caplog.text
    assert verify_store(out) == []


def test_scenes_that_left_the_shard_are_removed(
    scenes: list[Path], out: Path, calls: Calls
) -> None:
    extract_shard(scenes, TINY, out)
    (out / "notes").mkdir()  # not ours: stays
    extract_shard(scenes[1:], TINY, out)
    assert calls.count == 3
    assert sorted(entry.name for entry in out.iterdir() if entry.is_dir()) == [
        "notes",
        "scene0001_00",
        "scene0002_00",
    ]
    assert FeatureStore.open(out).scenes == ["scene0001_00", "scene0002_00"]


def test_each_scene_logs_one_line(
    scenes: list[Path], out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        extract_shard(scenes, TINY, out)
    lines = [record.message for record in caplog.records if "left" in record.message]
    assert len(lines) == 3
    assert lines[1].startswith("scene0001_00: 2 frames in ")
    assert "2 of 3 scenes" in lines[1]


def test_features_that_are_not_finite_are_named(
    scenes: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module, images: torch.Tensor, *, grid: int | str) -> torch.Tensor:
        features = torch.zeros(2, 14, 14, 768, dtype=torch.float16)
        features[1, 3, 4, 5] = float("inf")
        return features

    monkeypatch.setattr(extract, "scene_features", broken)
    with pytest.raises(DataError, match="scene0000_00: the teacher's features of frame 7 are not"):
        extract_shard(scenes, TINY, out)
    assert not (out / "manifest.json").exists()


def test_overflow_of_float16_counts_as_not_finite() -> None:
    class Huge(nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((1, images.shape[1], 4, 3), 1e6)

    found = scene_features(Huge(1, 1), torch.zeros(2, 3, 28, 28), grid=14)
    assert found.isinf().all()


def test_damaged_and_unequal_pictures_are_named(tmp_path: Path, out: Path) -> None:
    cut = write_scene(tmp_path, 4, [payload(1), payload(2)[:100]])
    with pytest.raises(DataError, match=r"scene0004_00\.zarr: frame 7: .*cannot be decoded"):
        extract_shard([cut], TINY, out)
    unequal = write_scene(tmp_path, 5, [payload(1), payload(2, size=(48, 64))])
    with pytest.raises(DataError, match=r"scene0005_00\.zarr: frame 7: picture of another shape"):
        extract_shard([unequal], TINY, out)


def test_a_missing_scene_store_is_named(scenes: list[Path], out: Path) -> None:
    with pytest.raises(StoreError, match="scene0077_00"):
        extract_shard([*scenes, scenes[0].parent / "scene0077_00.zarr"], TINY, out)


def test_settings() -> None:
    section = {
        "name": "vggt",
        "weights": "model.pt",
        "seed": 3,
        "grid": "full",
        "scenes_per_shard": 6,
    }
    assert TeacherSettings.from_config({"teacher": section}) == TeacherSettings(
        name="vggt", weights=Path("model.pt"), seed=3, grid="full"
    )
    with pytest.raises(ConfigError, match="vggt, vggt-tiny"):
        TeacherSettings(name="dinov2")
    with pytest.raises(ConfigError, match="14, full"):
        TeacherSettings(name="vggt-tiny", grid=7)
    with pytest.raises(ConfigError, match="seed"):
        TeacherSettings(name="vggt-tiny", seed=-1)


def test_show_command(scenes: list[Path], out: Path, tmp_path: Path) -> None:
    extract_shard(scenes, TINY, out)
    picture = tmp_path / "picture.png"
    command = ["show", str(out), "scene0001_00", "--out", str(picture), "--scene-store"]
    result = CliRunner().invoke(app, [*command, str(scenes[1])])
    assert result.exit_code == 0, result.output
    with Image.open(picture) as image:
        assert image.size == (2 * 224 + 4, 2 * 168 + 4 + 14)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["skipped"] == []
    write_scene(scenes[1].parent, 1, [payload(1), payload(2), payload(3)])
    refused = CliRunner().invoke(app, [*command, str(scenes[1])])
    assert refused.exit_code == 1
    assert isinstance(refused.exception, StoreError)
