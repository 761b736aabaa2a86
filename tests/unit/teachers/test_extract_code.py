"""Features that other code made are made again; what their teacher does not use changes nothing."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.teacher_scenes import TINY, Calls
from fixtures.teacher_scenes import calls as calls  # a fixture
from fixtures.teacher_scenes import out as out  # a fixture
from fixtures.teacher_scenes import scenes as scenes  # a fixture
from threedrs.teachers import feature_store
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import verify_store
from threedrs.workflow import code_hash, code_walk


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Has the sources read from a copy of the package in another folder, once it is called."""
    caches = (code_hash._hash, code_hash._package_sha256)
    caches += (code_walk.file_of, code_walk._module, code_walk._digest)

    def moved() -> Path:
        copy = tmp_path / "elsewhere" / "package"
        shutil.copytree(code_walk.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(code_walk, "PACKAGE", copy)
        for cache in caches:
            cache.cache_clear()
        return copy

    yield moved
    for cache in caches:
        cache.cache_clear()


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "id('edited')\n")  # a comment alone changes nothing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vggt/extractor", "vggt/attention", "extract", "feature_store"])
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
    for name in ("__init__", "io/files", "workflow/code_hash", "train"):
        edit(copy / f"{name}.py")
    for name in ("known_teachers", "weightless", "precomputed", "hub_encoders"):
        edit(copy / "teachers" / f"{name}.py")
    extract_shard(scenes, TINY, out)
    assert calls.count == 3


@pytest.mark.slow
def test_a_shard_half_done_by_other_code_is_done_whole(
    scenes: list[Path], out: Path, calls: Calls, package: Callable[[], Path]
) -> None:
    calls.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        extract_shard(scenes, TINY, out)
    edit(package() / "teachers" / "vggt" / "extractor.py")
    calls.fail_at = 5  # and once more, at the second scene
    with pytest.raises(KeyboardInterrupt):
        extract_shard(scenes, TINY, out)
    extract_shard(scenes, TINY, out)
    assert calls.count == 7  # 3 with the old code, 2 and 2 with the new
    stored = [feature_store.open_scene(out, path.stem).attributes for path in scenes]
    assert len({attributes["settings_sha256"] for attributes in stored}) == 1
    assert verify_store(out) == []
