"""Reading uncompressed shards: the same values as zarr, and every damage found."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from threedrs.errors import StoreError
from threedrs.io.zarr_shard import ShardError, is_plain_shard, read_shard
from threedrs.io.zarr_store import StoreReader, create_store, write_array

VALUES = np.arange(3 * 5 * 7, dtype=np.float16).reshape(3, 5, 7)
FILE = "features/c/0/0/0"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "a.zarr"
    with create_store(path) as group:
        group.attrs.update({"format_version": 1})
        write_array(group, "features", VALUES, chunk_shape=(1, 5, 7), compressed=False)
        write_array(group, "depth", VALUES, chunk_shape=(1, 5, 7))
        write_array(group, "small", VALUES, compressed=False)
        write_array(group, "none", VALUES[:0], chunk_shape=(1, 5, 7), compressed=False)
    return path


def reader(path: Path) -> StoreReader:
    return StoreReader.open(path, kind="store", format_version=1, remedy="remake it")


def test_only_uncompressed_shards_are_read_here(store: Path) -> None:
    group = zarr.open_group(store, mode="r")
    found = {name: is_plain_shard(group[name]) for name in ("features", "depth", "small", "none")}
    assert found == {"features": True, "depth": False, "small": False, "none": False}


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i4", "<f4", "<f8"])
def test_values_are_those_that_zarr_reads(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, (4, 6, 6, 3)).astype(dtype)
    with create_store(tmp_path / "a.zarr") as group:
        write_array(group, "x", values, chunk_shape=(1, 6, 6, 3), compressed=False)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["x"]
    assert is_plain_shard(array)
    found = read_shard(array, tmp_path / "a.zarr" / "x" / "c" / "0" / "0" / "0" / "0")
    np.testing.assert_array_equal(found, array[...])
    assert found.dtype == array.dtype
    assert found.flags.writeable


def test_arrays_of_every_form_are_read(store: Path) -> None:
    opened = reader(store)
    for name in ("features", "depth", "small"):
        np.testing.assert_array_equal(opened.read(name), VALUES)
    assert opened.read("none").shape == (0, 5, 7)


def test_a_flipped_bit_anywhere_is_found(store: Path) -> None:
    whole = (store / FILE).read_bytes()
    opened = reader(store)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x04
        (store / FILE).write_bytes(damaged)
        with pytest.raises(StoreError, match=r"a.zarr: array features is damaged \("):
            opened.read("features")


def test_a_cut_anywhere_is_found(store: Path) -> None:
    whole = (store / FILE).read_bytes()
    opened = reader(store)
    for size in range(len(whole)):
        (store / FILE).write_bytes(whole[:size])
        with pytest.raises(StoreError, match="array features is damaged"):
            opened.read("features")


def test_a_missing_file_and_an_absent_chunk_are_found(store: Path) -> None:
    array = zarr.open_group(store, mode="r+")["features"]
    # zarr drops a chunk of zeros by default, and would read it back as zeros
    array[1] = 0
    with pytest.raises(ShardError, match="chunk 1 is missing"):
        read_shard(array, store / FILE)
    (store / FILE).unlink()
    with pytest.raises(StoreError, match=r"array features is damaged \(.*No such file"):
        reader(store).read("features")
