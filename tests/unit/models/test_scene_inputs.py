"""A scene on another grid is counted from the pixels once for each content of its store."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.training_run import write_scene_inputs
from threedrs.models import scene_inputs
from threedrs.models.backbones.family import VisualGrid
from threedrs.models.scene_inputs import read_scene
from threedrs.scenes.store import SceneStore

SCENE = "scene0000_00"
GRID = VisualGrid(fine=7, coarse=7, newline=False)


def test_pixels_are_counted_once_for_each_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []

    def count(*arguments: Any) -> Any:
        counted.append(arguments)
        return patch_counts(*arguments)

    patch_counts = scene_inputs.patch_counts
    monkeypatch.setattr(scene_inputs, "patch_counts", count)
    path = tmp_path / f"results/scenes/{SCENE}.zarr"
    write_scene_inputs(tmp_path, SCENE, seed=1)
    first, second = (read_scene(SceneStore.open(path), "gt", grid=GRID) for _ in range(2))
    assert len(counted) == 1
    assert torch.equal(first.patch_xyz_VGG3, second.patch_xyz_VGG3)
    assert torch.equal(first.coarse_NVGG, second.coarse_NVGG)
    # The proposals are the same boxes the other way round, so their masks are, too.
    proposals = read_scene(SceneStore.open(path), "pred", grid=GRID)
    assert len(counted) == 2
    assert torch.equal(proposals.coarse_NVGG, first.coarse_NVGG.flip(0))
    shutil.rmtree(path)
    write_scene_inputs(tmp_path, SCENE, seed=2)
    read_scene(SceneStore.open(path), "gt", grid=GRID)
    assert len(counted) == 3


def test_boxes_are_read_once_and_kept_from_a_pack_that_changes_its_own(tmp_path: Path) -> None:
    write_scene_inputs(tmp_path, SCENE, seed=1)
    store = SceneStore.open(tmp_path / f"results/scenes/{SCENE}.zarr")
    boxes = store.boxes("gt").boxes.copy()
    shutil.rmtree(store.path / "boxes")
    read_scene(store, "gt").boxes_N6.zero_()
    assert boxes.any()
    assert (store.boxes("gt").boxes == boxes).all()


def test_what_was_counted_is_kept_of_all_scenes_of_scannet() -> None:
    """Packs come in random order, so one scene too many costs a count for nearly each of them."""
    assert scene_inputs._on_grid.cache_info().maxsize >= 1_513
