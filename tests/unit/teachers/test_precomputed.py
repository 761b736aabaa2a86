"""Features computed elsewhere: the reference's layout, checks, skipped scenes."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fixtures.teacher_scenes import write_scene
from threedrs.errors import CheckpointError, DataError, StoreError
from threedrs.teachers.extract import TeacherSettings, extract_shard
from threedrs.teachers.feature_store import FeatureStore, verify_store
from threedrs.teachers.precomputed import patch_grid

C = 6


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Return a scene store of two pictures of 64x48, frames 0 and 7."""
    return write_scene(tmp_path / "scenes", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "npz"
    folder.mkdir()
    return folder


def tokens(frames: int = 2, special: int = 5) -> np.ndarray:
    """Return tokens of a 12x16 grid; patch (r, c) of frame v holds 100 v + r + c / 100."""
    rows, columns = np.mgrid[:12, :16]
    values = np.full((frames, special + 192, C), -7.0, np.float32)
    for frame in range(frames):
        values[frame, special:] = (100 * frame + rows + columns / 100).reshape(192, 1)
    return values


def run(scene: Path, folder: Path, out: Path, **changes: object) -> FeatureStore:
    settings = {"name": "import", "weights": folder} | changes
    extract_shard([scene], TeacherSettings(**settings), out)
    assert verify_store(out) == []
    return FeatureStore.open(out)


@pytest.mark.parametrize("key", ["feature", "arr_0"])
@pytest.mark.parametrize("leading", [True, False])
def test_the_references_layout(
    key: str, leading: bool, scene: Path, folder: Path, tmp_path: Path
) -> None:
    values = tokens()[None] if leading else tokens()
    np.savez_compressed(folder / "scene0001_00.npz", **{key: values, "ps_idx": np.array(5)})
    store = run(scene, folder, tmp_path / "a.zarr", grid="full")
    assert store.channels == C
    found = store.features("scene0001_00")
    assert found.shape == (2, 12, 16, C)
    expected = tokens(special=0).reshape(2, 12, 16, C)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    pooled = run(scene, folder, tmp_path / "b.zarr").features("scene0001_00")
    assert pooled.shape == (2, 14, 14, C)
    assert pooled[1, 0, 0, 0] == pytest.approx(expected[1, :1, :2].mean(), rel=1e-3)


def test_without_ps_idx_every_token_is_a_patch(scene: Path, folder: Path, tmp_path: Path) -> None:
    frame_ids = np.array([0, 7])
    np.savez(folder / "scene0001_00.npz", tokens(special=0), frame_ids=frame_ids)
    store = run(scene, folder, tmp_path / "a.zarr", grid="full")
    assert store.frame_ids("scene0001_00") == [0, 7]


@pytest.mark.parametrize(
    ("patches", "proportion", "expected"),
    [
        (1036, 968 / 1296, (28, 37)),
        (192, 0.75, (12, 16)),
        (192, 4 / 3, (16, 12)),
        (196, 0.75, (14, 14)),
        (729, 0.75, (27, 27)),
        (1041, 0.75, None),
        (197, 0.75, None),
        (0, 0.75, None),
    ],
)
def test_patch_grid(patches: int, proportion: float, expected: tuple[int, int] | None) -> None:
    assert patch_grid(patches, proportion) == expected


def _nan() -> np.ndarray:
    values = tokens()
    values[1, 50, 3] = np.nan
    return values


def _huge() -> np.ndarray:
    values = tokens()
    values[0, 50, 3] = 1e6
    return values


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"feature": _nan(), "ps_idx": 5}, "features of frame 7 are not finite"),
        ({"feature": _huge(), "ps_idx": 5}, "features of frame 0 are not finite as float16"),
        ({"feature": tokens(3), "ps_idx": 5}, "holds 3 frames, the scene store 2"),
        (
            {"feature": tokens(), "ps_idx": 5, "frame_ids": [0, 8]},
            r"\[0, 8\] \(2\) are not",
        ),
        ({"feature": tokens()}, "197 patches a frame fit no grid of a 64x48 picture; ps_idx"),
        ({"feature": tokens(), "ps_idx": 197}, "ps_idx is no token of the 197"),
        ({"feature": tokens(), "ps_idx": "five"}, "ps_idx is no token"),
        ({"feature": tokens()[0], "ps_idx": 5}, r"float32 of shape \(197, 6\)"),
        ({"feature": tokens().astype(int), "ps_idx": 5}, r"int64 of shape \(2, 197, 6\)"),
        ({"tokens": tokens()}, "holds tokens; expected the features under feature or arr_0"),
        ({"feature": np.array([{}], object)}, "is not a readable npz file"),
    ],
)
def test_wrong_files_are_named(
    arrays: dict, message: str, scene: Path, folder: Path, tmp_path: Path
) -> None:
    np.savez(folder / "scene0001_00.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        run(scene, folder, tmp_path / "a.zarr")
    assert "scene0001_00.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.zarr" / "manifest.json").exists()


@pytest.mark.parametrize("kept", [0, 40, 0.5, 0.99])
def test_damaged_files_are_named(kept: float, scene: Path, folder: Path, tmp_path: Path) -> None:
    file = folder / "scene0001_00.npz"
    np.savez_compressed(file, feature=tokens(), ps_idx=5)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(DataError, match="is not a readable npz file"):
        run(scene, folder, tmp_path / "a.zarr")


def test_scenes_without_a_file_are_skipped_with_the_reason(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenes = [write_scene(tmp_path / "scenes", number) for number in (1, 2)]
    np.savez(folder / "scene0002_00.npz", feature=tokens(), ps_idx=5)
    settings = TeacherSettings(name="import", weights=folder)
    with caplog.at_level(logging.WARNING):
        manifest = extract_shard(scenes, settings, tmp_path / "a.zarr")
    reason = f"{folder / 'scene0001_00.npz'} does not exist"
    assert manifest["skipped"] == [{"scene": "scene0001_00", "reason": reason}]
    assert f"scene0001_00: skipped: {reason}" in caplog.text
    store = FeatureStore.open(tmp_path / "a.zarr")
    assert store.scenes == ["scene0002_00"]
    with pytest.raises(
        StoreError, match=r"no features of scene0001_00 \(skipped: .*does not exist"
    ):
        store.features("scene0001_00")
    assert verify_store(tmp_path / "a.zarr") == []
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    assert extract_shard(scenes, settings, tmp_path / "a.zarr")["skipped"] == []


def test_no_file_at_all_and_no_folder_are_errors(scene: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has features of none of the shard's scenes"):
        run(scene, folder, tmp_path / "a.zarr")
    for weights in (None, folder / "nowhere"):
        with pytest.raises(CheckpointError, match="not a folder; set it to the folder of the npz"):
            run(scene, folder, tmp_path / "a.zarr", weights=weights)


def test_scenes_of_different_channels_are_an_error(folder: Path, tmp_path: Path) -> None:
    scenes = [write_scene(tmp_path / "scenes", number) for number in (1, 2)]
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    np.savez(folder / "scene0002_00.npz", feature=tokens()[..., :4], ps_idx=5)
    settings = TeacherSettings(name="import", weights=folder)
    with pytest.raises(DataError, match="different channels"):
        extract_shard(scenes, settings, tmp_path / "a.zarr")


def test_a_replaced_file_is_read_again(scene: Path, folder: Path, tmp_path: Path) -> None:
    file, out = folder / "scene0001_00.npz", tmp_path / "a.zarr"
    np.savez(file, feature=tokens(), ps_idx=5)
    before = run(scene, folder, out).entry("scene0001_00")["features_sha256"]
    np.savez(file, feature=tokens() + 1, ps_idx=5)
    assert run(scene, folder, out).entry("scene0001_00")["features_sha256"] != before
