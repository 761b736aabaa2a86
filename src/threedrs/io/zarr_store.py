"""Zarr v3 groups written whole or not at all, and read with every byte checked.

Used by the scene store and the feature store. Each chunk carries a crc32c. An array may be sharded,
so that it is one file whose chunks are read one by one. Any damage is a `StoreError` that names
store and array. Stores are this project's own results and are trusted as such: no limit is set to
what their metadata announces.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.dtype import VariableLengthBytes
from zarr.core.metadata import ArrayV3Metadata
from zarr.errors import UnstableSpecificationWarning
from zarr.storage import LocalStore, StorePath

from threedrs.errors import StoreError, one_line, write_problem
from threedrs.io.files import atomic_folder
from threedrs.io.zarr_shard import is_plain_shard, read_shard

# Zstd's fastest level: what shrinks at all (depth, masks) shrinks at this one.
_ZSTD_LEVEL = 1


@contextmanager
def create_store(path: Path) -> Iterator[zarr.Group]:
    """Yield an empty zarr v3 group that takes the place of ``path`` when the block succeeds.

    Compute first, write inside: every OSError in the block is taken for a failure to write.

    Raises:
        StoreError: the store cannot be written (for instance, the disk is full).
    """
    try:
        # A store is a folder of files, so it is renamed into place when the last one is written.
        with atomic_folder(path) as temporary:
            yield zarr.open_group(temporary, mode="w", zarr_format=3)
    except OSError as error:
        raise StoreError(f"{path}: {write_problem(error)}") from error


def write_array(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    *,
    chunk_shape: tuple[int, ...] | None = None,
    compressed: bool = True,
    attributes: Mapping[str, Any] | None = None,
) -> str:
    """Write ``values`` as the array ``name`` (a path within ``group``); return its digest.

    With a ``chunk_shape`` the array is one file (shard) of such chunks, without it one chunk. What
    hardly shrinks (photographs, features) is not ``compressed``: zstd takes 5 to 10 % off, and most
    of the time of a read. The ``attributes`` are JSON values kept with the array.
    """
    # Zarr refuses a chunk of length zero, which an array without objects would have.
    whole = tuple(max(1, size) for size in values.shape)
    sharded = chunk_shape is not None and values.size > 0
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunk_shape if sharded and chunk_shape is not None else whole,
        shards=whole if sharded else None,
        compressors=[*([ZstdCodec(level=_ZSTD_LEVEL)] if compressed else []), Crc32cCodec()],
        attributes=dict(attributes or {}),
        # An all-zero chunk is written too: on reading, an absent chunk always means damage.
        config={"write_empty_chunks": True},
    )
    array[...] = values
    return array_digest(values)


def write_bytes(group: zarr.Group, name: str, payloads: Sequence[bytes]) -> str:
    """Write byte strings (compressed already) as a one-dimensional array; return its digest."""
    values = np.empty(len(payloads), dtype=object)
    values[:] = payloads
    with warnings.catch_warnings():
        # The encoding (zarr's vlen-bytes codec) is in wide use; the warning concerns its paper.
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=VariableLengthBytes(),
            chunks=(max(1, len(payloads)),),
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        array[...] = values
    return bytes_digest(payloads)


def array_digest(values: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape and values (little endian, C order)."""
    # The values are hashed, not the files, so another encoding by zarr leaves the digest as it is.
    values = np.asarray(values)
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str}{values.shape}".encode())
    digest.update(little.data if little.size else b"")
    return digest.hexdigest()


def bytes_digest(payloads: Sequence[bytes]) -> str:
    """Return the SHA-256 of a list of byte strings and their lengths."""
    digest = hashlib.sha256(f"bytes{tuple(len(payload) for payload in payloads)}".encode())
    for payload in payloads:
        digest.update(payload)
    return digest.hexdigest()


def _metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of a group or an array."""
    # By zarr's own functions, each one would wait for its thread: a scene has 14 arrays, and a
    # training opens all scenes when it starts.
    return dict(json.loads((folder / "zarr.json").read_bytes()))


@dataclass(frozen=True)
class StoreReader:
    """An opened store: its attributes, and its arrays read one a call."""

    path: Path  # the store's folder
    attributes: dict[str, Any]  # the group's attributes
    remedy: str  # what the user should do when the store is damaged; ends every error message
    _opened: dict[str, zarr.Array] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, *, kind: str, format_version: int, remedy: str) -> "StoreReader":
        """Open a store for reading and check its format version.

        Messages call it ``kind`` and end with ``remedy``, what to do about a damaged store.

        Raises:
            StoreError: there is no store, it is damaged, or of another format version.
        """
        path = Path(path)
        if not path.is_dir():
            raise StoreError(f"{path}: there is no {kind} here; {remedy}")
        try:
            attributes = dict(_metadata(path)["attributes"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{path}: is not a readable {kind} ({one_line(error, 160)}); {remedy}"
            ) from error
        found = attributes.get("format_version")
        if found != format_version:
            raise StoreError(
                f"{path}: {kind} of format version {found!r}, this release reads version "
                f"{format_version}; {remedy}"
            )
        return cls(path, attributes, remedy)

    def error(self, problem: str) -> StoreError:
        """Return a StoreError naming the store, the problem and the remedy."""
        return StoreError(f"{self.path}: {problem}; {self.remedy}")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of array ``name``. Raises StoreError if it is missing or damaged."""
        return tuple(self._array(name).shape)

    def read(self, name: str) -> np.ndarray:
        """Read the whole of array ``name``.

        Raises:
            StoreError: the array or one of its chunks is missing or damaged.
        """
        array = self._array(name)
        with self._named_damage(f"array {name}"):
            if is_plain_shard(array):
                return read_shard(array, self.path.joinpath(name, "c", *("0" * array.ndim)))
            self._require_chunks(name, array)
            return np.asarray(array[...])

    @contextmanager
    def _named_damage(self, what: str) -> Iterator[None]:
        """Name what is damaged where the block fails."""
        try:
            yield
        except Exception as error:  # checksum, decompression, metadata, shard index, input/output
            text = one_line(error, 160)
            # Zarr prints the two checksums as bytes.
            if text.startswith("Stored and computed"):
                text = "its checksum does not match"
            raise self.error(f"{what} is damaged ({text})") from error

    def _require_chunks(self, name: str, array: zarr.Array) -> None:
        """Raise OSError or ValueError if a file of ``array`` is missing or empty."""
        # Zarr reads an absent file, and an empty shard, as zeros without a word.
        assert isinstance(array.metadata, ArrayV3Metadata)
        grid = [
            -(-length // size)
            for length, size in zip(array.shape, array.shards or array.chunks, strict=True)
        ]
        for place in np.ndindex(*grid):
            file = self.path / name / array.metadata.encode_chunk_key(place)
            if file.stat().st_size == 0:
                raise ValueError("a data file is empty")

    def read_bytes(self, name: str) -> list[bytes]:
        """Read an array of byte strings. Raises StoreError as `read` does."""
        return [bytes(payload) for payload in self.read(name)]

    def array_attributes(self, name: str) -> dict[str, Any]:
        """Return the attributes of array ``name``. Raises StoreError if it is missing."""
        return dict(self._array(name).attrs)

    def _array(self, name: str) -> zarr.Array:
        # To open an array parses its metadata, and a sample reads the same ones again and again.
        if name not in self._opened:
            folder = self.path / name
            if not (folder / "zarr.json").exists():
                raise self.error(f"array {name} is missing")
            with self._named_damage(f"array {name}"), warnings.catch_warnings():
                warnings.simplefilter("ignore", UnstableSpecificationWarning)
                metadata = ArrayV3Metadata.from_dict(_metadata(folder))
                place = StorePath(LocalStore(folder, read_only=True))
                self._opened[name] = zarr.Array(zarr.AsyncArray(metadata, place))
        return self._opened[name]
