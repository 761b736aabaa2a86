"""A scene store on disk: its layout and content hash, and one clear error for any damage."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fixtures.scan_files import (
    BOXES,
    DEPTH,
    SETTINGS,
    build_scene,
    chunk_file,
    make_scan,
    write_sens,
)
from threedrs.errors import StoreError
from threedrs.io import zarr_store as zarr_io
from threedrs.scannet.layout import ScanFiles
from threedrs.scenes import store as store_module
from threedrs.scenes.store import SceneStore


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> ScanFiles:
    return make_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def built(scan: ScanFiles, tmp_path_factory: pytest.TempPathFactory) -> SceneStore:
    out = tmp_path_factory.mktemp("scenes") / "scene0000_00.zarr"
    return build_scene(scan, BOXES, SETTINGS, out, "train")


@pytest.fixture
def copy(built: SceneStore, tmp_path: Path) -> Path:
    """A store that a test may damage."""
    return Path(shutil.copytree(built.path, tmp_path / "scene0000_00.zarr"))


def test_layout_on_disk_is_the_specified_one(built: SceneStore) -> None:
    group = zarr.open_group(built.path, mode="r")
    assert group.metadata.zarr_format == 3
    frames, objects = 3, {"gt": 2, "pred": 1}
    expected = {
        "rgb": ((frames, 384, 384, 3), "uint8", (1, 384, 384, 3)),
        "depth": ((frames, 384, 384), "uint16", (1, 384, 384)),
        "pose": ((frames, 4, 4), "float64", None),
        "depth_intrinsic": ((4, 4), "float64", None),
        "patch_xyz": ((frames, 14, 14, 3), "float32", None),
    }
    for name, count in objects.items():
        expected[f"boxes/{name}"] = ((count, 6), "float32", None)
        expected[f"boxes/{name}_ids"] = ((count,), "int32", None)
        expected[f"masks/{name}/fine"] = ((count, frames, 92), "uint8", None)
        expected[f"masks/{name}/coarse"] = ((count, frames, 25), "uint8", None)
    for name, (shape, dtype, chunks) in expected.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert (array.shape, str(array.dtype)) == (shape, dtype)
        files = [path for path in (built.path / name / "c").rglob("*") if path.is_file()]
        assert len(files) == 1
        if chunks is not None:
            assert array.chunks == chunks
            assert array.shards == array.shape
        assert "crc32c" in (built.path / name / "zarr.json").read_text()
    assert group["depth_intrinsic"].attrs["depth_size"] == list(DEPTH)
    attributes = dict(group.attrs)
    assert attributes["format_version"] == 1
    assert attributes["frame_ids"] == [0, 20, 40]
    assert (attributes["stride"], attributes["strategy"]) == (10, "uniform")
    assert attributes["source"] == "scene0000_00.sens"
    assert {"scene", "split", "source_sha256", "threedrs_version", "content"} <= set(attributes)
    assert attributes["notes"] == ["1 of 5 candidate frames dropped (the pose is not finite): 10"]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_building_is_deterministic(scan: ScanFiles, built: SceneStore, tmp_path: Path) -> None:
    again = build_scene(scan, BOXES, SETTINGS, tmp_path / "again.zarr", "train")
    assert folder_bytes(again.path) == folder_bytes(built.path)


def test_content_hash_is_of_values_not_of_encoding(copy: Path, built: SceneStore) -> None:
    group = zarr.open_group(copy, mode="r+")
    rgb = group["rgb"][...]
    group.create_array("rgb", data=rgb, chunks=(1, 96, 96, 3), compressors=None, overwrite=True)
    group.attrs.update({"threedrs_version": "9.9", "source": "elsewhere"})
    store = SceneStore.open(copy)
    store.verify()
    assert store.content_hash() == built.content_hash()


@pytest.mark.slow
def test_content_hash_tells_values_apart(
    scan: ScanFiles, built: SceneStore, tmp_path: Path
) -> None:
    other = tmp_path / "other.sens"
    write_sens(other, seed=1)
    relabelled = replace(BOXES["gt"], labels=("table", "far lamp"))
    hashes = {built.content_hash()}
    for files, boxes, split in (
        (replace(scan, sens=other), BOXES, "train"),
        (scan, {**BOXES, "gt": relabelled}, "train"),
        (scan, {**BOXES, "gt": replace(BOXES["gt"], ids=np.array([4, 8], np.int32))}, "train"),
        (scan, BOXES, "val"),
    ):
        store = build_scene(files, boxes, SETTINGS, tmp_path / "x.zarr", split)
        store.verify()
        hashes.add(store.content_hash())
    assert len(hashes) == 5


READS: dict[str, Callable[[SceneStore], Any]] = {
    "rgb": SceneStore.rgb,
    "depth": SceneStore.depth,
    "jpeg": SceneStore.jpegs,
    "patch_xyz": SceneStore.patch_xyz,
    "pose": SceneStore.poses,
    "boxes/gt": lambda store: SceneStore.open(store.path).boxes("gt"),  # an opened store keeps them
    "masks/pred/fine": lambda store: store.masks("pred"),
}


@pytest.mark.slow
@pytest.mark.parametrize("array", READS)
def test_damaged_chunks_are_one_error(copy: Path, array: str) -> None:
    file = chunk_file(copy, array)
    whole = file.read_bytes()
    store = SceneStore.open(copy)
    READS[array](store)
    damages = [whole[: len(whole) // 2], b"", None]
    for position in np.linspace(0, len(whole) - 1, 12).astype(int):
        damages.append(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
    for damage in damages:
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        with pytest.raises(StoreError, match=f"array {array} is damaged") as caught:
            READS[array](store)
        assert str(copy) in str(caught.value)
        assert "threedrs verify --repair" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(StoreError, match=f"array {array} is damaged"):
            store.verify()
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(whole)
    store.verify()


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_other_versions_are_refused_with_a_remedy(copy: Path) -> None:
    edit_json(copy / "zarr.json", lambda group: group["attributes"].update(format_version=7))
    message = "format version 7, this release reads version 1; run .threedrs verify --repair"
    with pytest.raises(StoreError, match=message):
        SceneStore.open(copy)


def test_missing_and_foreign_parts_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.zarr: there is no scene store here"):
        SceneStore.open(tmp_path / "none.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(
        StoreError, match=r"empty\.zarr: there is no scene store here; check the name"
    ):
        SceneStore.open(tmp_path / "empty.zarr")
    shutil.move(copy / "depth", tmp_path / "depth")
    with pytest.raises(StoreError, match="array depth is missing"):
        SceneStore.open(copy)
    shutil.move(tmp_path / "depth", copy / "depth")
    whole = (copy / "patch_xyz" / "zarr.json").read_text()
    (copy / "patch_xyz" / "zarr.json").write_text(whole[:100])
    with pytest.raises(StoreError, match="array patch_xyz is damaged"):
        SceneStore.open(copy)
    (copy / "patch_xyz" / "zarr.json").write_text(whole)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scene", "scene0000_01", "do not fit the content hash"),
        ("frame_ids", [0, 20, 30], "do not fit the content hash"),
        ("frame_ids", [0, 20], "do not fit the content hash"),
        ("invalid_depth", None, "do not fit the content hash"),
        ("content", "0" * 64, "do not fit the content hash"),
        ("digests", {"rgb": 1}, "do not fit the content hash"),
        ("digests", None, "the attributes are damaged"),
    ],
)
def test_damaged_attributes(copy: Path, name: str, value: Any, message: str) -> None:
    edit_json(copy / "zarr.json", lambda group: group["attributes"].update({name: value}))
    with pytest.raises(StoreError, match=message):
        SceneStore.open(copy)


def test_damaged_labels_and_size(copy: Path) -> None:
    labels = copy / "boxes" / "gt" / "zarr.json"
    edit_json(labels, lambda array: array["attributes"].update(labels=["desk"]))
    with pytest.raises(StoreError, match="do not fit the content hash"):
        SceneStore.open(copy)
    edit_json(labels, lambda array: array["attributes"].pop("labels"))
    with pytest.raises(StoreError, match=r"the attributes are damaged \(KeyError\('labels'\)\)"):
        SceneStore.open(copy)


def test_a_failed_build_leaves_the_old_store(
    scan: ScanFiles, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder_bytes(copy.parent)

    def full_disk(*arguments: Any, **options: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.zarr_store, "write_bytes", full_disk)
    with pytest.raises(StoreError, match=r"scene0000_00\.zarr: cannot be written \(No space left"):
        build_scene(scan, BOXES, SETTINGS, copy, "train")
    assert folder_bytes(copy.parent) == before


def test_digests_are_of_values() -> None:
    values = np.arange(12, dtype="<i4").reshape(3, 4)
    digest = zarr_io.array_digest(values)
    assert digest == zarr_io.array_digest(values.astype(">i4"))
    assert digest == zarr_io.array_digest(np.asfortranarray(values))
    assert digest != zarr_io.array_digest(values.reshape(4, 3))
    assert digest != zarr_io.array_digest(values.astype("<u4"))
    assert zarr_io.bytes_digest([b"ab", b"c"]) != zarr_io.bytes_digest([b"a", b"bc"])
