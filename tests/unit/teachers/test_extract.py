"""Extraction of a shard: values, what is kept, what a kill costs, and errors."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from fixtures.teacher_scenes import TINY, Calls, payload, write_scene
from fixtures.teacher_scenes import calls as calls
from fixtures.teacher_scenes import out as out
from fixtures.teacher_scenes import scenes as scenes
from threedrs.cli.stores import features_app as app
from threedrs.errors import ConfigError, DataError, MachineError, StoreError
from threedrs.teachers import extract, image_extractor
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import common_channels, verify_store
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.image_decoding import preprocess_image
from threedrs.teachers.image_extractor import ImageExtractor, pool_features
from threedrs.teachers.known_teachers import teacher_settings
from threedrs.teachers.teacher import TeacherSettings
from threedrs.teachers.vggt.extractor import TINY_IMAGES, tiny_model

pytestmark = pytest.mark.slow


def test_values_are_the_pooled_features(scenes: list[Path], out: Path) -> None:
    manifest = extract_shard(scenes, TINY, out)
    store = FeatureStore.open(out)
    assert manifest == store.manifest
    assert store.scenes == ["scene0000_00", "scene0001_00", "scene0002_00"]
    assert store.channels == 768
    assert verify_store(out) == []
    pictures = [torch.from_numpy(preprocess_image(payload(s), TINY_IMAGES)) for s in (10, 11)]
    images = torch.stack(pictures).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        patches = tiny_model(0).eval()(images[None])[0].reshape(2, 12, 16, 768)
    expected = np.empty((2, 14, 14, 768))
    for row in range(14):  # adaptive pooling: cell i averages floor(i n / 14) to ceil((i+1) n / 14)
        for column in range(14):
            top, bottom = row * 12 // 14, -(-(row + 1) * 12 // 14)
            left, right = column * 16 // 14, -(-(column + 1) * 16 // 14)
            expected[:, row, column] = patches[:, top:bottom, left:right].double().mean((1, 2))
    found = store.features("scene0001_00")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=2e-3)
    assert store.frames("scene0001_00").student == (0, 7)
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
    with pytest.raises(StoreError, match="not a finished feature store"):
        FeatureStore.open(out)
    (out / ".scene0002_00.99999999.tmp").mkdir()  # what a harder kill leaves
    extract_shard(scenes, TINY, out)
    assert calls.count == 4
    assert verify_store(out) == []
    assert not list(out.glob(".*"))


def test_after_kill_9_finished_scenes_are_kept(scenes: list[Path], out: Path, calls: Calls) -> None:
    program = f"""
import time
from pathlib import Path
from threedrs.teachers import image_extractor
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.teacher import TeacherSettings
plain, done = image_extractor.patch_features, []
def slow(model, pictures):
    if done:
        time.sleep(600)
    done.append(1)
    return plain(model, pictures)
image_extractor.patch_features = slow
extract_shard([Path(p) for p in {[str(path) for path in scenes]}],
              TeacherSettings(name="vggt-tiny"), Path({str(out)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 300
    while not (out / "scene0000_00").is_dir() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    before = (out / "scene0000_00" / "zarr.json").stat().st_mtime_ns
    with pytest.raises(StoreError, match="not a finished feature store"):
        FeatureStore.open(out)
    extract_shard(scenes, TINY, out)
    assert calls.count == 2  # the other two
    assert (out / "scene0000_00" / "zarr.json").stat().st_mtime_ns == before
    assert verify_store(out) == []


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
    assert "; " not in caplog.text  # no remedy, as this is the remedy
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
    def broken(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        features = torch.zeros(2, 192, 768)
        features[1, 34, 5] = float("nan")
        return features

    monkeypatch.setattr(image_extractor, "patch_features", broken)
    with pytest.raises(DataError, match="scene0000_00: the teacher's features of frame 7 are not"):
        extract_shard(scenes, TINY, out)
    assert not (out / "manifest.json").exists()


def test_overflow_of_float16_counts_as_not_finite() -> None:
    features = torch.zeros(3, 4, 5)
    features[1] = 1e6
    _, finite = pool_features(features, (2, 2), grid=14)
    assert finite.tolist() == [True, False, True]


def test_too_little_gpu_memory_is_one_line(
    scenes: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(image_extractor, "patch_features", full)
    if torch.cuda.is_available():
        torch.cuda.init()  # reads the device's real properties, once
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16e9)
    )
    with pytest.raises(MachineError) as caught:
        extract_shard(scenes, TINY, out)
    assert str(caught.value) == (
        "scene0000_00: teacher vggt-tiny needs more GPU memory for 2 frames of 224x168 than this "
        "GPU has free (of 16 GB); stop what else runs on it, use a larger GPU, or lower "
        "frames.count"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_the_real_model_without_a_gpu_warns_once(
    scenes: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = ImageExtractor(
        "vggt", TINY_IMAGES, identify=lambda: "x", load=lambda: tiny_model(0), heavy=True
    )
    monkeypatch.setattr(extract, "open_extractor", lambda settings: source)
    extract_shard(scenes, TINY, out)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "there is no GPU: teacher vggt takes about" in warnings[0]
    assert "minutes for a scene of 32 frames" in warnings[0]


def test_damaged_and_unequal_pictures_are_named(tmp_path: Path, out: Path) -> None:
    cut = write_scene(tmp_path, 4, [payload(1), payload(2)[:100]])
    with pytest.raises(DataError, match=r"scene0004_00\.zarr: the image of frame 7 is not a"):
        extract_shard([cut], TINY, out)
    unequal = write_scene(tmp_path, 5, [payload(1), payload(2, size=(48, 64))])
    with pytest.raises(
        DataError, match=r"scene0005_00\.zarr: the image of frame 7 has another shape"
    ):
        extract_shard([unequal], TINY, out)


def test_a_missing_scene_store_is_named(scenes: list[Path], out: Path) -> None:
    with pytest.raises(StoreError, match="scene0077_00"):
        extract_shard([*scenes, scenes[0].parent / "scene0077_00.zarr"], TINY, out)


def test_left_out_scenes_are_listed_and_keep_what_they_had(scenes: list[Path], out: Path) -> None:
    extract_shard(scenes, TINY, out)
    digest = (out / "scene0001_00" / "zarr.json").read_bytes()
    left_out = {"scene0001_00": "it is truncated"}
    manifest = extract_shard([scenes[0], scenes[2]], TINY, out, left_out=left_out)
    assert manifest["skipped"] == [{"scene": "scene0001_00", "reason": "it is truncated"}]
    store = FeatureStore.open(out)
    assert store.scenes == ["scene0000_00", "scene0002_00"]
    with pytest.raises(StoreError, match=r"no features of scene0001_00 \(skipped: it is truncated"):
        store.features("scene0001_00")
    assert (out / "scene0001_00" / "zarr.json").read_bytes() == digest
    assert verify_store(out) == []


def test_a_shard_of_left_out_scenes_is_empty(scenes: list[Path], out: Path, calls: Calls) -> None:
    left_out = {f"scene000{number}_00": "no pose" for number in range(3)}
    manifest = extract_shard([], TINY, out, left_out=left_out)
    assert (manifest["scenes"], manifest["channels"], calls.count) == ({}, 0, 0)
    assert len(manifest["skipped"]) == 3
    assert FeatureStore.open(out).scenes == []
    assert verify_store(out) == []
    other = out.with_name("train-001.zarr")
    extract_shard(scenes[:1], TINY, other)
    assert common_channels([out, other]) == FeatureStore.open(other).channels > 0
    with pytest.raises(StoreError, match="no scene has features here or beside it"):
        common_channels([out])


def test_settings() -> None:
    section = {
        "name": "vggt",
        "weights": "model.pt",
        "seed": 3,
        "grid": "full",
        "scenes_per_shard": 6,
    }
    assert teacher_settings(section) == TeacherSettings(
        name="vggt", weights=Path("model.pt"), seed=3, grid="full"
    )
    with pytest.raises(ConfigError, match="choose one of: vggt, dinov2, siglip2, mae, import"):
        extract_shard([], TeacherSettings(name="clip"), Path("nowhere"))


def test_show_command(
    scenes: list[Path], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_shard(scenes, TINY, out)
    picture = tmp_path / "picture.png"
    command = ["show", str(out), "scene0001_00", "--out", str(picture), "--scene-store"]
    result = CliRunner().invoke(app, [*command, str(scenes[1])])
    assert result.exit_code == 0, result.output
    with Image.open(picture) as image:
        assert image.size == (2 * 224 + 4, 2 * 168 + 4 + 14)
    monkeypatch.chdir(tmp_path)
    command = ["show", str(out), "scene0001_00", "--scene-store"]
    result = CliRunner().invoke(app, [*command, str(scenes[1])])
    assert result.output == "scene0001_00.png: written\n"
    assert (tmp_path / "scene0001_00.png").read_bytes() == picture.read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["skipped"] == []
    write_scene(scenes[1].parent, 1, [payload(1), payload(2), payload(3)])
    refused = CliRunner().invoke(app, [*command, str(scenes[1])])
    assert refused.exit_code == 1
    assert isinstance(refused.exception, StoreError)
