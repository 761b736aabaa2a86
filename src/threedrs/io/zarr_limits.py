"""What of a zarr store is refused before it is read: stores may come from elsewhere.

Metadata of a hundred bytes can announce an array of any size, a chunk of some kilobytes can unpack
to gigabytes, and a file of an unpacked archive can be a link to another folder or a named pipe. So
an array and each of its chunks have at most `MOST_BYTES`; only the codecs that stores are written
with are used; each compressed chunk must announce the size of a chunk; and every file read is a
regular one inside the store. The store's own folder may be a link: results may lie on another disk.
Costs a look at each file's place, and at the first bytes of compressed chunks.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, VLenBytesCodec, ZstdCodec
from zarr.codecs.sharding import ShardingCodecIndexLocation
from zarr.core.metadata import ArrayV3Metadata

MOST_BYTES = 4 * 2**30  # of an array: a hundred times a scene of 32 frames
MOST_METADATA = 64 * 2**20
_CODECS = (BytesCodec, Crc32cCodec, VLenBytesCodec, ZstdCodec)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_HEADER = 18  # bytes at most
_CHECKSUM = 4


class LimitError(ValueError):
    """The store goes beyond a limit; one clause that says which."""


def check_metadata(store: Path, name: str) -> None:
    """Check that the metadata of group or array ``name`` of ``store`` is a small file inside it.

    Raises:
        LimitError: it is not; a missing file passes.
    """
    file = store / name / "zarr.json"
    if file.exists() and check_file(store, file) > MOST_METADATA:
        raise LimitError(f"its metadata has more than {MOST_METADATA} bytes")


def check_file(store: Path, file: Path) -> int:
    """Return the size of ``file`` if it is a regular file inside ``store``.

    Raises:
        LimitError: it is no regular file, or links lead it out of the store.
        OSError: it is missing.
    """
    if not file.resolve(strict=True).is_relative_to(store.resolve()):
        raise LimitError(f"{file.relative_to(store)} leads out of the store")
    if not file.is_file():
        raise LimitError(f"{file.relative_to(store)} is no regular file")
    return file.stat().st_size


def check_array(array: zarr.Array) -> None:
    """Check an array's announced size and its codecs.

    Raises:
        LimitError: it is too large, or encoded in another way than stores are.
    """
    size = array.dtype.itemsize
    for what, shape in (("it", array.shape), ("a chunk of it", array.shards or array.chunks)):
        if math.prod(shape) * size > MOST_BYTES:
            raise LimitError(f"{what} has shape {shape}, which is more than {MOST_BYTES >> 30} GiB")
    metadata = array.metadata
    if not isinstance(metadata, ArrayV3Metadata) or metadata.storage_transformers:
        raise LimitError("its metadata is not of zarr version 3, or transforms the storage")
    sharding = _sharding(array)
    codecs = [*sharding.codecs, *sharding.index_codecs] if sharding else [*metadata.codecs]
    for codec in codecs:
        if type(codec) not in _CODECS:
            raise LimitError(f"codec {type(codec).__name__} is not one of stores")
    if sharding and sharding.index_location != ShardingCodecIndexLocation.end:
        raise LimitError("its shards begin with their index")
    compressors = _compressors(array)
    if compressors > 1 or (compressors and array.dtype.kind == "O"):
        raise LimitError("it is compressed twice, or holds compressed texts")


def check_chunks(array: zarr.Array, files: list[Path]) -> None:
    """Check that no compressed chunk in the ``files`` of ``array`` unpacks to more than a chunk.

    Raises:
        LimitError: one does.
        OSError: a file cannot be read.
    """
    if not _compressors(array):
        return
    sharding = _sharding(array)
    chunk = math.prod(array.chunks) * array.dtype.itemsize
    for file in files:
        with file.open("rb", buffering=0) as stream:
            descriptor = stream.fileno()
            for offset in _chunk_offsets(array, descriptor) if sharding else [0]:
                announced = frame_content_size(os.pread(descriptor, _ZSTD_HEADER, offset))
                # A checksum may be inside the compressed bytes.
                if announced is None or announced > chunk + _CHECKSUM:
                    raise LimitError(f"a chunk of {chunk} bytes unpacks to {announced} bytes")


def frame_content_size(start: bytes) -> int | None:
    """Return how many bytes a Zstandard frame says that it holds; None: it does not say.

    Source: RFC 8878, section 3.1.1.1.
    """
    if start[:4] != _ZSTD_MAGIC or len(start) < 6:
        return None
    descriptor = start[4]
    flag, single_segment = descriptor >> 6, descriptor >> 5 & 1
    size = (1 if single_segment else 0, 2, 4, 8)[flag]
    first = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if not size or len(start) < first + size:
        return None
    return int.from_bytes(start[first : first + size], "little") + (256 if flag == 1 else 0)


def _chunk_offsets(array: zarr.Array, descriptor: int) -> list[int]:
    """Return where the chunks of an open shard begin, from the index at its end."""
    count = math.prod(
        -(-outer // inner)
        for outer, inner in zip(array.shards or array.chunks, array.chunks, strict=True)
    )
    size = os.fstat(descriptor).st_size
    start = size - 16 * count - _CHECKSUM
    if start < 0:
        return []  # cut off; the read says so
    index = np.frombuffer(os.pread(descriptor, 16 * count, start), dtype="<u8").reshape(-1, 2)
    return [offset for offset in index[:, 0].tolist() if offset < size]


def _sharding(array: zarr.Array) -> Any:
    codecs = array.metadata.codecs if isinstance(array.metadata, ArrayV3Metadata) else ()
    return codecs[0] if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec) else None


def _compressors(array: zarr.Array) -> int:
    sharding = _sharding(array)
    metadata = array.metadata
    assert isinstance(metadata, ArrayV3Metadata)
    codecs = sharding.codecs if sharding else metadata.codecs
    return sum(isinstance(codec, ZstdCodec) for codec in codecs)
