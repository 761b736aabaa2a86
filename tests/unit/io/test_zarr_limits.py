"""Stores made to harm: no metadata, chunk or link makes a reader wait, leave or fill the memory."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import GzipCodec

from fixtures.hostile import little_memory
from fixtures.training_run import SCENES, SHARD, write_features, write_scene_inputs
from threedrs.errors import StoreError, ThreedrsError
from threedrs.io.zarr_limits import frame_content_size
from threedrs.scenes.store import SceneStore
from threedrs.teachers.base import ImageFormat
from threedrs.teachers.images import preprocess_image
from threedrs.teachers.store import FeatureStore, verify_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_scene_inputs(folder, SCENES[0], 0)
    write_features(folder)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A scene store that a test may damage."""
    path = shutil.copytree(made / f"results/scenes/{SCENES[0]}.zarr", tmp_path / "a.zarr")
    with little_memory():
        yield path


@pytest.fixture
def shard(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / SHARD, tmp_path / "train-000.zarr"))


def one_line(call: Callable[[], Any], path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def chunk(store: Path, array: str) -> Path:
    return next(path for path in (store / array / "c").rglob("*") if path.is_file())


def with_checksum(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(4, "little")


@pytest.mark.parametrize("rows", [2**31, 2**44, 2**60])
def test_arrays_of_any_size(store: Path, rows: int) -> None:
    def grow(metadata: dict[str, Any]) -> None:
        metadata["shape"][0] = rows
        metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = rows

    for name in ("boxes/gt", "boxes/gt_ids", "masks/gt/fine", "masks/gt/coarse"):
        edit(store / name / "zarr.json", grow)
    assert "which is more than 4 GiB" in one_line(lambda: SceneStore.open(store), store)


def test_chunks_of_any_size(store: Path) -> None:
    grid = {"chunk_shape": [2**40, 4, 4]}
    edit(store / "pose/zarr.json", lambda array: array["chunk_grid"].update(configuration=grid))
    message = one_line(lambda: SceneStore.open(store), store)
    assert "a chunk of it has shape (1099511627776, 4, 4)" in message


def test_chunks_that_unpack_to_gigabytes(store: Path) -> None:
    bomb = Zstd(1).encode(np.zeros(2**28, np.uint8))
    assert len(bomb) < 2**16
    for name, read in (("pose", SceneStore.poses), ("patch_xyz", SceneStore.patch_xyz)):
        opened = SceneStore.open(store)
        chunk(store, name).write_bytes(with_checksum(bomb))
        message = one_line(lambda opened=opened, read=read: read(opened), store)
        assert f"array {name} is damaged (a chunk of " in message
        assert "unpacks to 268435456 bytes" in message


def test_shards_whose_chunks_unpack_to_gigabytes(store: Path) -> None:
    opened = SceneStore.open(store)
    bomb = with_checksum(Zstd(1).encode(np.zeros(2**28, np.uint8)))
    index = np.array([[0, len(bomb)]], "<u8").tobytes()
    chunk(store, "depth").write_bytes(bomb + with_checksum(index))
    assert "unpacks to 268435456 bytes" in one_line(opened.depth, store)


def test_frames_that_do_not_say_their_size() -> None:
    for size in (0, 1, 255, 256, 65_791, 65_792, 2**20):
        assert frame_content_size(Zstd(1).encode(bytes(size))[:18]) == size
    assert frame_content_size(b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00") is None
    assert frame_content_size(b"\x50\x2a\x4d\x18\x00\x00\x00\x00") is None
    assert frame_content_size(b"") is None


def test_only_the_codecs_of_stores_run(store: Path) -> None:
    group = zarr.open_group(store, mode="r+")
    group.create_array("pose", data=group["pose"][...], compressors=GzipCodec(), overwrite=True)
    message = one_line(lambda: SceneStore.open(store), store)
    assert "array pose is damaged (codec GzipCodec is not one of stores)" in message
    edit(store / "pose/zarr.json", lambda array: array.update(codecs=[{"name": "os.system"}]))
    assert "array pose is damaged" in one_line(lambda: SceneStore.open(store), store)


@pytest.mark.parametrize("array", ["rgb", "depth", "pose"])
def test_links_and_pipes_in_place_of_chunks(store: Path, tmp_path: Path, array: str) -> None:
    read = {"rgb": SceneStore.rgb, "depth": SceneStore.depth, "pose": SceneStore.poses}[array]
    opened, file = SceneStore.open(store), chunk(store, array)
    secret = tmp_path / "secret"
    shutil.copy(file, secret)
    file.unlink()
    file.symlink_to(secret)
    assert "leads out of the store" in one_line(lambda: read(opened), store)
    file.unlink()
    os.mkfifo(file)
    assert "is no regular file" in one_line(lambda: read(opened), store)


@pytest.mark.parametrize("stray", ["decoy", ".nfs0001", ".0.AbC123"])
def test_other_files_do_not_stand_for_chunks(store: Path, tmp_path: Path, stray: str) -> None:
    opened, folder = SceneStore.open(store), store / "pose/c/0"
    folder.rename(tmp_path / "outside")
    (store / "pose/c" / stray).write_bytes(b"not a chunk")
    assert "No such file" in one_line(opened.poses, store)
    folder.symlink_to(tmp_path / "outside")
    assert "leads out of the store" in one_line(opened.poses, store)


def test_chunks_are_checked_where_zarr_reads_them(store: Path, tmp_path: Path) -> None:
    elsewhere = {"name": "v2", "configuration": {"separator": "."}}
    edit(store / "pose/zarr.json", lambda array: array.update(chunk_key_encoding=elsewhere))
    outside = shutil.copy(chunk(store, "pose"), tmp_path / "outside")
    (store / "pose/0.0.0").symlink_to(outside)
    assert "leads out of the store" in one_line(SceneStore.open(store).poses, store)


def test_links_pipes_and_giants_in_place_of_metadata(store: Path, tmp_path: Path) -> None:
    for name in ("zarr.json", "pose/zarr.json"):
        whole = (store / name).read_bytes()
        outside = tmp_path / "metadata.json"
        outside.write_bytes(whole)
        (store / name).unlink()
        (store / name).symlink_to(outside)
        assert "leads out of the store" in one_line(lambda: SceneStore.open(store), store)
        (store / name).unlink()
        os.mkfifo(store / name)
        assert "is no regular file" in one_line(lambda: SceneStore.open(store), store)
        (store / name).unlink()
        with (store / name).open("wb") as stream:
            stream.truncate(2**40)
        assert "metadata has more than" in one_line(lambda: SceneStore.open(store), store)
        (store / name).write_bytes(whole)
    assert SceneStore.open(store).scene == SCENES[0]


def test_a_store_may_be_a_link_itself(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(store)
    SceneStore.open(tmp_path / "link.zarr").verify()


def test_a_scene_of_a_feature_store_is_no_link_out(shard: Path, tmp_path: Path) -> None:
    assert FeatureStore.open(shard).features(SCENES[0]).shape[0] == 1
    (shard / SCENES[0]).rename(tmp_path / "elsewhere")
    (shard / SCENES[0]).symlink_to(tmp_path / "elsewhere")
    message = one_line(lambda: FeatureStore.open(shard).features(SCENES[0]), shard)
    assert "is a link that leads out of the feature store; delete" in message
    assert len(verify_store(shard)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scenes": {"../../etc": {}}},
        {"scenes": {"scene0000_00/../..": {}}},
        {"skipped": ["scene0000_00"]},
        {"skipped": 3},
        {"channels": "eight"},
    ],
)
def test_manifests(shard: Path, change: dict[str, Any]) -> None:
    edit(shard / "manifest.json", lambda manifest: manifest.update(change))
    one_line(lambda: FeatureStore.open(shard), shard)
    assert len(verify_store(shard)) == 1


def test_frame_numbers_of_features(shard: Path) -> None:
    edit(shard / SCENES[0] / "zarr.json", lambda group: group["attributes"].update(frame_ids=3))
    assert "frame_ids is malformed" in one_line(
        lambda: FeatureStore.open(shard).frame_ids(SCENES[0]), shard
    )


def test_pictures_that_start_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow hands PostScript to Ghostscript.
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError(f"started {arguments}")

    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, started)
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ThreedrsError, match="the colour picture cannot be decoded"):
        preprocess_image(program, ImageFormat(width=168, patch=14))
