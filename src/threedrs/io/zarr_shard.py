"""Uncompressed zarr shards, read straight into the array and compared with their checksums.

Zarr hands each chunk of a shard to a thread and copies it twice. For the 40 MB of a training sample
that is most of the read (benchmarks/RESULTS.md).
"""

import os
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.metadata import ArrayV3Metadata

_CHECKSUM = struct.Struct("<I")


class ShardError(ValueError):
    """The shard's file is damaged; the message says where."""


def is_plain_shard(array: zarr.Array) -> bool:
    """Whether `read_shard` reads this array: one uncompressed shard of one chunk a row.

    That is the form which `write_array` gives uncompressed arrays. Anything else is left to zarr.
    """
    metadata = array.metadata
    assert isinstance(metadata, ArrayV3Metadata)
    sharding = metadata.codecs[0]
    return (
        isinstance(sharding, ShardingCodec)
        and [type(codec) for codec in sharding.codecs] == [BytesCodec, Crc32cCodec]
        and array.shards == array.shape
        and array.chunks == (1, *array.shape[1:])
    )


def read_shard(array: zarr.Array, file: Path) -> np.ndarray:
    """Return the values in ``file``, the data file of an array for which `is_plain_shard` holds.

    Raises:
        ShardError: the file is cut, or an offset or a checksum is wrong.
        OSError: the file cannot be read.
    """
    values = np.empty(array.shape, dtype=array.dtype)
    rows = values.reshape(len(values), -1).view(np.uint8)
    index, checksum = np.empty((len(values), 2), dtype="<u8"), bytearray(_CHECKSUM.size)
    with file.open("rb", buffering=0) as stream:
        descriptor = stream.fileno()
        # Zarr puts the index at the end, with a checksum of four bytes behind it.
        _read(descriptor, index, checksum, os.fstat(descriptor).st_size - index.nbytes - 4, "index")
        for number, (offset, length) in enumerate(index.tolist()):
            if length != rows.shape[1] + _CHECKSUM.size:
                raise ShardError(f"chunk {number} is missing or of another size")
            _read(descriptor, rows[number], checksum, offset, f"chunk {number}")
    return values


def _read(descriptor: int, target: np.ndarray, checksum: bytearray, offset: int, what: str) -> None:
    """Fill ``target`` from ``offset`` and compare the crc32c that follows it."""
    if not 0 <= offset < 2**63:
        raise ShardError(f"the {what} lies outside the file")
    # One system call fills the array and takes the checksum behind it: no copy, no second seek.
    if os.preadv(descriptor, [target.data, checksum], offset) != target.nbytes + _CHECKSUM.size:
        raise ShardError(f"the {what} is cut off")
    if google_crc32c.value(target) != _CHECKSUM.unpack(checksum)[0]:
        raise ShardError(f"the checksum of the {what} does not match")
