"""Features computed elsewhere: the frames that they are of, and their export."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fixtures.feature_files import C, pooled_file, run, tokens
from fixtures.feature_files import folder as folder
from fixtures.feature_files import scene as scene
from threedrs.cli import app
from threedrs.errors import ConfigError, DataError
from threedrs.io.files import write_json
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.precomputed import exported_file
from threedrs.teachers.teacher_frames import evenly_spaced, folder_frames


def frames_of(
    scene: Path, folder: Path, tmp_path: Path, names: list[int], **settings: object
) -> dict:
    """Import with a folder of exported images of these numbers; return the manifest's row."""
    images = tmp_path / "posed_images" / "scene0001_00"
    images.mkdir(parents=True)
    for name in names:
        (images / f"{name:05d}.jpg").touch()
        (images / f"{name:05d}.txt").touch()
    settings = {"posed_images": images.parent} | settings
    return run(scene, folder, tmp_path / "a.zarr", **settings).entry("scene0001_00")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # linspace(0, 1, 2) of two images: both
        ([0, 7], {}),
        # linspace(0, 2, 2) of three: the first and the last
        ([0, 3, 7], {}),
        ([0, 7, 9], {"teacher_frames": [0, 9]}),
        ([], {"frames_proven": False}),
    ],
)
def test_the_frames_are_those_of_the_scans_folder(
    names: list[int], expected: dict, scene: Path, folder: Path, tmp_path: Path
) -> None:
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    entry = frames_of(scene, folder, tmp_path, names)
    assert {k: entry[k] for k in ("teacher_frames", "frames_proven") if k in entry} == expected
    frames = FeatureStore.open(tmp_path / "a.zarr").frames("scene0001_00")
    assert frames.student == (0, 7)
    assert frames.teacher == tuple(expected.get("teacher_frames", (0, 7)))


def test_a_lost_pose_may_leave_the_frames_as_they_are(tmp_path: Path) -> None:
    images = [f"{number:05d}.jpg" for number in range(0, 120, 10)]
    for name in images:
        (tmp_path / name).touch()
    # of 12 frames the sixth is lost: linspace(0, 10, 4) over 11, and linspace(0, 11, 4) over 12
    student = [number for number in range(0, 120, 10) if number != 50]
    chosen = tuple(student[index] for index in (0, 3, 6, 10))
    assert evenly_spaced(folder_frames(tmp_path), 4) == chosen == (0, 30, 70, 110)


def test_a_forks_frames_are_those_of_the_list(scene: Path, folder: Path, tmp_path: Path) -> None:
    pooled_file(folder / "scene0001_00" / "vggt.npz")
    listed = tmp_path / "candidates.json"
    infos = {"scene0001_00": {"frames": [0, 5, 7]}}
    write_json(listed, {"format_version": 2, "scenes": infos})
    entry = frames_of(scene, folder, tmp_path, [0, 9], candidates=(listed,))
    assert "teacher_frames" not in entry
    assert "frames_proven" not in entry


def test_frames_that_the_file_names_need_no_proof(
    scene: Path, folder: Path, tmp_path: Path
) -> None:
    np.savez(folder / "scene0001_00.npz", tokens(3, special=0), frame_ids=np.array([7, 8, 9]))
    entry = frames_of(scene, folder, tmp_path, [0, 7])
    assert entry["teacher_frames"] == [7, 8, 9]
    assert entry["shape"] == [3, 14, 14, C]
    store = FeatureStore.open(tmp_path / "a.zarr")
    features, rows = store.supervision("scene0001_00", [0, 7], "by_frame")
    assert rows == [1]
    np.testing.assert_array_equal(features, store.features("scene0001_00")[:1])
    with pytest.raises(ConfigError, match="2 frames cannot take the features of 3"):
        store.supervision("scene0001_00", [0, 7], "as_published")


def test_other_frames_are_read_again_when_the_folder_changes(
    scene: Path, folder: Path, tmp_path: Path
) -> None:
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    assert frames_of(scene, folder, tmp_path, [0, 7, 9])["teacher_frames"] == [0, 9]
    (tmp_path / "posed_images" / "scene0001_00" / "00009.jpg").unlink()
    store = run(scene, folder, tmp_path / "a.zarr", posed_images=tmp_path / "posed_images")
    assert "teacher_frames" not in store.entry("scene0001_00")


def test_a_replaced_file_is_read_again(scene: Path, folder: Path, tmp_path: Path) -> None:
    file, out = folder / "scene0001_00.npz", tmp_path / "a.zarr"
    np.savez(file, feature=tokens(), ps_idx=5)
    before = run(scene, folder, out).entry("scene0001_00")["features_sha256"]
    np.savez(file, feature=tokens() + 1, ps_idx=5)
    assert run(scene, folder, out).entry("scene0001_00")["features_sha256"] != before


@pytest.mark.parametrize("grid", [14, "full"])
@pytest.mark.parametrize("names", [[0, 7], [0, 9], []])
def test_exported_features_come_back_as_they_were(
    grid: int | str, names: list[int], scene: Path, folder: Path, tmp_path: Path
) -> None:
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    before = frames_of(scene, folder, tmp_path, names, grid=grid)
    out = tmp_path / "exported"
    command = ["features", "export", str(tmp_path / "a.zarr"), "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert result.output == f"{out}/scene0001_00.npz: written\n"
    with np.load(out / "scene0001_00.npz") as archive:
        assert archive["ps_idx"] == 0
        if grid == 14:
            assert archive["feature"].dtype == np.float16
            assert archive["feature"].shape == (1, 2, 196, C)
            assert ("patch_grid" in archive.files) == ("frame_ids" in archive.files) == bool(names)
        else:
            assert archive["feature"].dtype == np.float32
            assert archive["feature"].shape == (1, 2, 192, C)
    again = run(scene, out, tmp_path / "b.zarr", grid=grid).entry("scene0001_00")
    assert again == before


@pytest.mark.parametrize(
    ("teacher", "name"),
    [
        ("vggt", "scene0001_00/vggt.npz"),
        ("dinov2", "scene0001_00/dinov2.npz"),
        ("my-own", "scene0001_00.npz"),
        ("pointmap", "scene0001_00.npz"),
    ],
)
def test_only_a_published_teacher_names_the_exported_file(
    teacher: str, name: str, scene: Path, folder: Path, tmp_path: Path
) -> None:
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    store = run(scene, folder, tmp_path / "a.zarr")
    store.manifest["teacher"] = teacher
    assert exported_file(store, "scene0001_00", tmp_path / "out") == tmp_path / "out" / name


@pytest.mark.parametrize("name", ["scene0001_00/vggt.npz", "scene0001_00.npz"])
def test_export_writes_over_no_features(
    name: str, scene: Path, folder: Path, tmp_path: Path
) -> None:
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    run(scene, folder, tmp_path / "a.zarr")
    downloaded = tmp_path / "out" / name
    downloaded.parent.mkdir(parents=True)
    downloaded.write_bytes(b"downloaded")
    command = ["features", "export", str(tmp_path / "a.zarr"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == (
        f"{downloaded}: is there already, with other features; remove it, or name another folder"
    )
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [downloaded]
    assert downloaded.read_bytes() == b"downloaded"


def test_export_goes_on_where_it_was_stopped(scene: Path, folder: Path, tmp_path: Path) -> None:
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    run(scene, folder, tmp_path / "a.zarr")
    out = tmp_path / "out"
    command = ["features", "export", str(tmp_path / "a.zarr"), "--out", str(out)]
    assert CliRunner().invoke(app, command).output.endswith(".npz: written\n")
    (file,) = out.rglob("*.npz")
    before = file.stat().st_mtime_ns
    result = CliRunner().invoke(app, command)
    assert result.output == f"{file}: is there already\n"
    assert file.stat().st_mtime_ns == before
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(file, **{**arrays, "feature": arrays["feature"] + 1})
    result = CliRunner().invoke(app, command)
    assert "is there already, with other features" in str(result.exception)
