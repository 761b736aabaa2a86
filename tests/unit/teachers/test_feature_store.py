"""The feature store: what is written is what is read, and damage is found and named."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from threedrs.cli.stores import features_app as app
from threedrs.errors import StoreError
from threedrs.io.files import write_json
from threedrs.teachers.feature_shards import frames_of_imports, verify_store
from threedrs.teachers.feature_store import (
    FeatureStore,
    SceneOrigin,
    manifest_entry,
    open_scene,
    write_root,
    write_scene,
)
from threedrs.teachers.teacher_frames import TeacherFrames
from threedrs.visualization.feature_plot import principal_colours

SCENES = ("scene0000_00", "scene0001_00")
FRAMES = (0, 10, 40)


def values(scene: str) -> np.ndarray:
    random = np.random.default_rng(SCENES.index(scene))
    return random.standard_normal((len(FRAMES), 14, 14, 8)).astype(np.float16)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-000.zarr"
    write_root(path)
    for scene in SCENES:
        origin = SceneOrigin(
            scene=scene,
            frame_ids=FRAMES,
            input_sha256="in",
            teacher="vggt-tiny",
            weights_sha256="weights",
            settings_sha256="settings",
        )
        write_scene(path, origin, values(scene), input_size=(168, 224), seconds=0.5)
    entries = {scene: manifest_entry(open_scene(path, scene)) for scene in SCENES}
    manifest = {"format_version": 2, "teacher": "vggt-tiny", "channels": 8, "scenes": entries}
    write_json(path / "manifest.json", manifest)
    return path


def data_file(shard: Path, scene: str) -> Path:
    (path,) = (file for file in (shard / scene / "features" / "c").rglob("*") if file.is_file())
    return path


def edit_manifest(shard: Path, **changes: object) -> None:
    manifest = json.loads((shard / "manifest.json").read_text())
    (shard / "manifest.json").write_text(json.dumps(manifest | changes))


def test_round_trip(shard: Path) -> None:
    store = FeatureStore.open(shard)
    assert store.scenes == list(SCENES)
    assert store.channels == 8
    for scene in SCENES:
        found = store.features(scene)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, values(scene))
        assert store.frames(scene).student == tuple(FRAMES)
    assert verify_store(shard) == []


def test_plain_zarr_reads_it(shard: Path) -> None:
    array = zarr.open_group(shard, mode="r")["scene0001_00/features"]
    np.testing.assert_array_equal(array[:], values("scene0001_00"))
    assert array.chunks == (1, 14, 14, 8)
    assert array.shards == (3, 14, 14, 8)
    expected = {
        "format_version": 2,
        "scene": "scene0001_00",
        "frame_ids": [0, 10, 40],
        "teacher": "vggt-tiny",
        "weights_sha256": "weights",
        "grid": [14, 14],
        "input_size": [168, 224],
        "dtype": "float16",
    }
    for attributes in (array.attrs, zarr.open_group(shard / "scene0001_00", mode="r").attrs):
        assert expected.items() <= dict(attributes).items()
        assert "threedrs_version" in attributes


def test_every_flipped_byte_is_found(shard: Path) -> None:
    path = data_file(shard, "scene0001_00")
    whole = path.read_bytes()
    for place in (0, 1000, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(broken)
        (problem,) = verify_store(shard)
        assert "scene0001_00" in problem
        with pytest.raises(StoreError, match=r"scene0001_00.*features.*delete .*manifest\.json"):
            FeatureStore.open(shard).features("scene0001_00")
    np.testing.assert_array_equal(
        FeatureStore.open(shard).features("scene0000_00"), values("scene0000_00")
    )


def test_missing_data_never_reads_as_zeros(shard: Path) -> None:
    data_file(shard, "scene0000_00").unlink()
    with pytest.raises(StoreError, match="missing"):
        FeatureStore.open(shard).features("scene0000_00")
    assert len(verify_store(shard)) == 1


def test_scenes_that_do_not_fit_the_manifest_are_found(shard: Path) -> None:
    (shard / "scene0000_00").rename(shard / "scene0005_00")
    problems = verify_store(shard)
    assert len(problems) == 2
    assert "scene0000_00" in problems[0]
    assert "scene0005_00 is not listed" in problems[1]


def test_exchanged_scenes_are_found(shard: Path) -> None:
    first, second = (shard / scene for scene in SCENES)
    first.rename(shard / "aside")
    second.rename(first)
    (shard / "aside").rename(second)
    assert any("holds the features of scene0001_00" in problem for problem in verify_store(shard))
    with pytest.raises(StoreError, match="describes other features"):
        FeatureStore.open(shard).features("scene0000_00")


def test_manifest_mismatch_is_found(shard: Path) -> None:
    manifest = json.loads((shard / "manifest.json").read_text())
    manifest["scenes"]["scene0000_00"]["features_sha256"] = "0" * 64
    edit_manifest(shard, **manifest)
    (problem,) = verify_store(shard)
    assert "checksum in manifest.json" in problem


def test_a_manifest_of_another_version_is_refused(shard: Path) -> None:
    edit_manifest(shard, format_version=3)
    with pytest.raises(StoreError, match="format version 3"):
        FeatureStore.open(shard)
    assert len(verify_store(shard)) == 1


def test_unfinished_missing_and_unreadable_stores_are_named(shard: Path, tmp_path: Path) -> None:
    (shard / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="not valid JSON"):
        FeatureStore.open(shard)
    (shard / "manifest.json").unlink()
    with pytest.raises(
        StoreError,
        match="finished feature store; check the name, or run `snakemake --cores all features`",
    ):
        FeatureStore.open(shard)
    with pytest.raises(StoreError, match="no feature store here"):
        FeatureStore.open(tmp_path / "nowhere.zarr")


def test_other_frames_are_refused(shard: Path) -> None:
    store = FeatureStore.open(shard)
    store.frames("scene0000_00", FRAMES)
    for frames in ([0, 10], [0, 10, 50], [10, 0, 40]):
        with pytest.raises(StoreError, match=r"scene0000_00: features are of frames \[0, 10, 40\]"):
            store.frames("scene0000_00", frames)
    with pytest.raises(StoreError, match="no features of scene0009_00"):
        store.features("scene0009_00")


def test_verify_command(shard: Path) -> None:
    good = CliRunner().invoke(app, ["verify", str(shard)])
    assert good.exit_code == 0
    assert good.output == f"{shard}: ok, 2 scenes\n"
    data_file(shard, "scene0000_00").unlink()
    bad = CliRunner().invoke(app, ["verify", str(shard)])
    assert bad.exit_code == 1
    assert len(bad.output.splitlines()) == 1


def test_principal_colours_follow_the_strongest_direction() -> None:
    random = np.random.default_rng(0)
    direction = np.array([0.0, 3.0, 0.0, -1.0])
    strength = random.uniform(-1, 1, (2, 5, 6))
    features = strength[..., None] * direction + 0.01 * random.standard_normal((2, 5, 6, 4))
    colours = principal_colours(features.astype(np.float16))
    assert colours.shape == (2, 5, 6, 3)
    correlation = np.corrcoef(colours[..., 0].ravel(), strength.ravel())[0, 1]
    assert correlation > 0.99  # channel 1 weighs most, so it counts positive


def test_principal_colours_of_constant_features() -> None:
    colours = principal_colours(np.ones((1, 2, 2, 2), np.float16))
    assert (colours == colours[0, 0, 0]).all()


def test_what_the_scene_report_says_of_imported_features(tmp_path: Path) -> None:
    write_root(tmp_path)
    frames = [
        TeacherFrames(student=FRAMES, teacher=FRAMES),
        TeacherFrames(student=FRAMES, teacher=(0, 20, 50)),
    ]
    entries = {}
    for scene, each in zip(SCENES, frames, strict=True):
        origin = SceneOrigin(
            scene=scene,
            frame_ids=FRAMES,
            input_sha256="",
            teacher="import",
            weights_sha256="",
            settings_sha256="",
        )
        write_scene(
            tmp_path, origin, values(scene), input_size=(168, 224), seconds=0.5, frames=each
        )
        entries[scene] = manifest_entry(open_scene(tmp_path, scene))
    write_json(tmp_path / "manifest.json", {"format_version": 2, "channels": 8, "scenes": entries})
    notes, counts = frames_of_imports([tmp_path], "by_frame")
    assert notes == {
        SCENES[1]: [
            "the features are of other frames than the scene store's; 1 of its 3 are among them "
            "(teacher.other_frames)"
        ]
    }
    assert counts == [
        "The features of 1 of 2 scenes are of other frames than the student's. 2 of 6 frames are "
        "in no 3D loss, and 0 scenes have no common frame."
    ]
    assert frames_of_imports([], "by_frame") == ({}, [])
