"""Features that other code made are made again; what their teacher does not use changes nothing."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from report_files import SCENES, scene_contents
from torch import nn

from threedrs import modules
from threedrs.scenes.writer import write_scene_store
from threedrs.teachers import extract, picture_source
from threedrs.teachers import store as feature_store
from threedrs.teachers.extract import TeacherSettings, extract_shard
from threedrs.teachers.forward import patch_features
from threedrs.teachers.verify import verify_store

TINY = TeacherSettings(name="vggt-tiny")


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "scenes" / f"{scene}.zarr" for scene in SCENES[:3]]
    for path in paths:
        write_scene_store(path, scene_contents(path.stem))
    return paths


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "features" / "vggt-tiny" / "train-000.zarr"


class Calls:
    """Counts the model's passes; ``fail_at``: those that raise, as a kill would end the run."""

    def __init__(self) -> None:
        self.count = 0
        self.fail_at: list[int] = []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()

    def counted(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        calls.count += 1
        if calls.count in calls.fail_at:
            raise KeyboardInterrupt
        return patch_features(model, pictures)

    monkeypatch.setattr(picture_source, "patch_features", counted)
    return calls


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Has the sources read from a copy of the package in another folder, once it is called."""
    caches = (modules._closure, modules._file_of, modules._imports)

    def moved() -> Path:
        copy = tmp_path / "elsewhere" / "package"
        shutil.copytree(modules.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(modules, "PACKAGE", copy)
        monkeypatch.setattr(extract, "PACKAGE", copy)
        for cache in caches:
            cache.cache_clear()
        return copy

    yield moved
    for cache in caches:
        cache.cache_clear()


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "# edited\n")


@pytest.mark.parametrize("name", ["vggt_source", "rope", "extract", "store"])
def test_edited_code_of_the_teacher_makes_all_anew(
    scenes: list[Path], out: Path, calls: Calls, package: Callable[[], Path], name: str
) -> None:
    extract_shard(scenes, TINY, out)
    manifest = (out / "manifest.json").read_bytes()
    edit(package() / "teachers" / f"{name}.py")
    extract_shard(scenes, TINY, out)
    assert calls.count == 6
    extract_shard(scenes, TINY, out)
    assert calls.count == 6
    # the features are the same, so nothing is to follow
    assert (out / "manifest.json").read_bytes() == manifest


def test_other_code_and_another_folder_keep_all(
    scenes: list[Path], out: Path, calls: Calls, package: Callable[[], Path]
) -> None:
    extract_shard(scenes, TINY, out)
    copy = package()
    extract_shard(scenes, TINY, out)
    assert calls.count == 3
    for name in ("__init__", "files", "modules", "train"):
        edit(copy / f"{name}.py")
    for name in ("registry", "pointmap", "imported", "dinov2"):
        edit(copy / "teachers" / f"{name}.py")
    extract_shard(scenes, TINY, out)
    assert calls.count == 3


def test_a_shard_half_done_by_other_code_is_done_whole(
    scenes: list[Path], out: Path, calls: Calls, package: Callable[[], Path]
) -> None:
    calls.fail_at.append(3)
    with pytest.raises(KeyboardInterrupt):
        extract_shard(scenes, TINY, out)
    edit(package() / "teachers" / "vggt_source.py")
    calls.fail_at.append(5)  # and once more, at the second scene
    with pytest.raises(KeyboardInterrupt):
        extract_shard(scenes, TINY, out)
    extract_shard(scenes, TINY, out)
    assert calls.count == 7  # 3 with the old code, 2 and 2 with the new
    stored = [feature_store.open_scene(out, path.stem).attributes for path in scenes]
    assert len({attributes["settings_sha256"] for attributes in stored}) == 1
    assert verify_store(out) == []
