"""Features computed elsewhere: the reference's layout, checks, skipped scenes."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fixtures.feature_files import C, pooled_file, run, tokens
from fixtures.feature_files import folder as folder
from fixtures.feature_files import scene as scene
from fixtures.teacher_scenes import write_scene
from threedrs.errors import CheckpointError, DataError, StoreError
from threedrs.scenes.store import SceneStore
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import verify_store
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.precomputed import patch_grid
from threedrs.teachers.teacher import TeacherSettings


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
    assert store.frames("scene0001_00").student == (0, 7)


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
        ({"feature": _nan(), "ps_idx": 5}, r"frame 1 \(from 0\) are not finite"),
        ({"feature": _huge(), "ps_idx": 5}, r"frame 0 \(from 0\) are not finite as float16"),
        ({"feature": tokens(3), "ps_idx": 5}, "holds 3 frames, the scene store 2, and nothing"),
        (
            {"feature": tokens(), "ps_idx": 5, "frame_ids": [0, 8, 9]},
            r"frame_ids is int64 of shape \(3,\); expected 2 integers",
        ),
        ({"feature": tokens(), "frame_ids": ["0", "7"]}, "frame_ids is <U1 of shape"),
        ({"feature": tokens()}, "197 patches a frame fit no grid of a 64x48 image; ps_idx"),
        ({"feature": tokens(), "ps_idx": 197}, "ps_idx is not the index of one of a frame's 197"),
        ({"feature": tokens(), "ps_idx": "five"}, "ps_idx is not the index"),
        ({"feature": tokens(), "patch_grid": 14}, "patch_grid is not the side of 197 patches"),
        ({"feature": tokens(), "patch_grid": [14, 14]}, "patch_grid is not the side"),
        ({"feature": tokens(0), "ps_idx": 5}, r"float32 of shape \(0, 197, 6\)"),
        ({"feature": tokens()[0], "ps_idx": 5}, r"float32 of shape \(197, 6\)"),
        ({"feature": tokens().astype(int), "ps_idx": 5}, r"int64 of shape \(2, 197, 6\)"),
        ({"tokens": tokens()}, "holds tokens; expected the features under feature or arr_0, or by"),
        ({"feature_last": tokens()}, "holds feature_last; expected"),
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
    reason = (
        f"{folder} has neither scene0001_00.npz nor one of vggt.npz, flare.npz, dinov2.npz, "
        "siglip2.npz in scene0001_00/"
    )
    assert manifest["skipped"] == [{"scene": "scene0001_00", "reason": reason}]
    assert f"scene0001_00: skipped: {reason}" in caplog.text
    store = FeatureStore.open(tmp_path / "a.zarr")
    assert store.scenes == ["scene0002_00"]
    with pytest.raises(
        StoreError,
        match=r"of scene0001_00 \(skipped: .*has neither.*; add its file to teacher\.weights, or "
        r"leave the scene out of the list that data\.splits names \(where there is none, write one",
    ):
        store.features("scene0001_00")
    assert verify_store(tmp_path / "a.zarr") == []
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    assert extract_shard(scenes, settings, tmp_path / "a.zarr")["skipped"] == []


def test_a_damaged_first_image_of_a_store_is_one_line_with_the_remedy(
    scene: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(folder / "scene0001_00.npz", tokens(special=0), frame_ids=np.array([0, 7]))
    monkeypatch.setattr(SceneStore, "jpegs", lambda self: [b"damaged"])
    with pytest.raises(DataError, match=rf"^{scene}: its first image .*threedrs verify --repair"):
        run(scene, folder, tmp_path / "a.zarr")


def test_no_file_at_all_and_no_folder_are_errors(scene: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has features of none of the shard's scenes"):
        run(scene, folder, tmp_path / "a.zarr")
    for weights in (None, folder / "nowhere"):
        with pytest.raises(
            CheckpointError, match=r"the folder of the feature files|nowhere is not a folder"
        ):
            run(scene, folder, tmp_path / "a.zarr", weights=weights)


def test_scenes_of_different_channels_are_an_error(folder: Path, tmp_path: Path) -> None:
    scenes = [write_scene(tmp_path / "scenes", number) for number in (1, 2)]
    np.savez(folder / "scene0001_00.npz", feature=tokens(), ps_idx=5)
    np.savez(folder / "scene0002_00.npz", feature=tokens()[..., :4], ps_idx=5)
    settings = TeacherSettings(name="import", weights=folder)
    with pytest.raises(DataError, match="different channels"):
        extract_shard(scenes, settings, tmp_path / "a.zarr")


# How the field's files look (published.md, section 2): folder and name, key, tokens, special ones.
FORMS = [
    ("scene0001_00.npz", "feature", (12, 16), 5),
    ("scene0001_00/vggt.npz", "feature", (28, 37), 5),
    ("scene0001_00/flare.npz", "arr_0", (24, 32), 0),
    ("scene0001_00/dinov2.npz", "feature", (16, 16), 0),
    ("scene0001_00/siglip2.npz", "feature", (16, 16), 0),
]


@pytest.mark.parametrize(("name", "key", "grid", "special"), FORMS)
def test_the_fields_files_are_pooled_row_by_row(
    name: str,
    key: str,
    grid: tuple[int, int],
    special: int,
    scene: Path,
    folder: Path,
    tmp_path: Path,
) -> None:
    rows, columns = grid
    values = np.random.default_rng(0).normal(size=(1, 2, special + rows * columns, C))
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    more = {"ps_idx": np.array(special)} if special else {}
    np.savez_compressed(file, **{key: values.astype(np.float32), **more})
    found = run(scene, folder, tmp_path / "a.zarr").features("scene0001_00")
    for frame in range(2):
        patches = values[0, frame, special:].astype(np.float32)
        np.testing.assert_allclose(found[frame], slow_pooling(patches, grid), rtol=2e-3, atol=2e-3)


def slow_pooling(patches_PC: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the means over 14 x 14 cells, of rows floor(i R / 14) to ceil((i + 1) R / 14)."""
    rows, columns = grid
    out = np.empty((14, 14, patches_PC.shape[1]))
    for i in range(14):
        for j in range(14):
            members = [
                patches_PC[row * columns + column]
                for row in range(i * rows // 14, -(-(i + 1) * rows // 14))
                for column in range(j * columns // 14, -(-(j + 1) * columns // 14))
            ]
            out[i, j] = np.mean(members, axis=0)
    return out


def test_a_whole_sequence_gives_the_numbers_of_our_own_extractor(
    scene: Path, folder: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.zarr"
    extract_shard([scene], TeacherSettings(name="vggt-tiny"), own)
    whole = tmp_path / "whole.zarr"
    extract_shard([scene], TeacherSettings(name="vggt-tiny", grid="full"), whole)
    patches = FeatureStore.open(whole).features("scene0001_00")
    tokens = patches.reshape(1, 2, -1, patches.shape[-1]).astype(np.float32)
    special = np.full((1, 2, 5, patches.shape[-1]), 9, np.float32)
    (folder / "scene0001_00").mkdir()
    np.savez(
        folder / "scene0001_00" / "vggt.npz",
        feature=np.concatenate([special, tokens], axis=2),
        ps_idx=np.array(5),
    )
    imported = run(scene, folder, tmp_path / "a.zarr").features("scene0001_00")
    expected = FeatureStore.open(own).features("scene0001_00")
    # the whole grid was rounded to half precision when it was stored
    np.testing.assert_allclose(imported, expected, rtol=2e-3, atol=2e-3)


def test_a_forks_pooled_features_stay_as_they_are(
    scene: Path, folder: Path, tmp_path: Path
) -> None:
    values = pooled_file(folder / "scene0001_00" / "vggt.npz")
    found = run(scene, folder, tmp_path / "a.zarr").features("scene0001_00")
    np.testing.assert_array_equal(found.reshape(2, 196, C), values)


def test_of_a_forks_layers_the_last_is_taken(scene: Path, folder: Path, tmp_path: Path) -> None:
    layers = {f"feature_l{layer}": tokens(special=0) + layer for layer in (4, 11, 23, 17)}
    (folder / "scene0001_00").mkdir()
    np.savez(folder / "scene0001_00" / "vggt.npz", **layers)
    found = run(scene, folder, tmp_path / "a.zarr", grid="full").features("scene0001_00")
    np.testing.assert_allclose(found[0, 0, 0], 23)


def test_two_files_of_a_scene_are_an_error(scene: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("vggt", "flare"):
        pooled_file(folder / "scene0001_00" / f"{name}.npz")
    with pytest.raises(DataError, match=r"vggt.npz: scene0001_00/flare.npz stands beside it; keep"):
        run(scene, folder, tmp_path / "a.zarr")
