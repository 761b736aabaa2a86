"""Pickles from elsewhere as plain values and numpy arrays: ``.pkl``, and the ``.pth`` of torch.

A pickle is a program. This one runs with an empty tool box: the names that it may use are numpy's
array, dtype and scalar constructors, for which stand-ins collect shape, type and bytes, and plain
containers. Any other name ends the reading before anything is called. `as_array` turns what was
collected into an array where a reader needs it. torch is not needed, as a ``.pth`` of arrays is a
zip archive with one such pickle.

A pickle may also ask for memory far beyond its size (a memo of billions of entries, copies of
copies), so the process gets no more than a stated multiple of the file's size while it is read.
"""

import io
import math
import pickle
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from threedrs.errors import DataError

# Memory for reading: a file's plain values take some ten times its size.
_MOST_PER_BYTE = 64
_MOST_BESIDE = 2**29
_MOST_UNPACKED = 2**31  # bytes of the pickle in a .pth; a scene's takes 10 MB
_NUMERIC = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # first value of a .pth that torch wrote before 1.6


class _RefusedError(Exception):
    """The pickle asks for something that is not admitted; the message says what."""


class _StandIn:
    """Stands for an admitted name; a pickle may call it and can change nothing about it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("changes what it may only call")


class _Dtype:
    """Collects a numpy dtype: its code such as ``f4``, and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|")[:1] == "O":
            raise _RefusedError("holds a numpy array of Python objects")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        self.order = order if order in ("<", ">", "|") else "="

    def numeric(self) -> np.dtype | None:
        """Return the dtype if it is of numbers, else None."""
        return np.dtype(self.order + self.code) if self.code in _NUMERIC else None


class _Array:
    """Collects a numpy array: shape, dtype, order and bytes."""

    __slots__ = ("parts",)

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __setstate__(self, state: Any) -> None:
        parts = state[-4:] if isinstance(state, tuple) else ()
        if len(parts) != 4 or not isinstance(parts[3], bytes):  # a list: Python objects
            raise _RefusedError("holds a numpy array of Python objects")
        self.parts = parts


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array(shape, dtype, order == "F", bytes(buffer))


def _scalar(dtype: Any, data: Any = b"") -> Any:
    found = dtype.numeric() if isinstance(dtype, _Dtype) and isinstance(data, bytes) else None
    return None if found is None else np.frombuffer(data, found)[0].item()


def _encode(text: Any, encoding: Any = None) -> bytes:
    # Pickle protocols up to 2 write bytes so.
    if type(text) is not str or encoding != "latin1":
        raise _RefusedError("holds an encoding that numpy does not use")
    return text.encode("latin1")


def _refuse(*_: Any) -> None:
    raise _RefusedError("holds a call of numpy that no array needs")


# The types cannot be altered by a pickle, nor the stand-ins, so the table stays as it is.
_ADMITTED: dict[str, dict[str, Callable[..., Any]]] = {
    "numpy": {"ndarray": _StandIn(_refuse), "dtype": _StandIn(_Dtype)},
    "numpy.core.multiarray": {
        "_reconstruct": _StandIn(lambda *_: _Array()),
        "scalar": _StandIn(_scalar),
    },
    "numpy.core.numeric": {"_frombuffer": _StandIn(_from_buffer)},
    "collections": {"OrderedDict": dict},
    # Protocols up to 2 write empty bytes as bytes().
    "builtins": {"set": set, "frozenset": frozenset, "bytes": _StandIn(lambda: b"")},
    "_codecs": {"encode": _StandIn(_encode)},
}
_ALIASES = {
    "__builtin__": "builtins",  # protocols up to 2
    "numpy._core.multiarray": "numpy.core.multiarray",  # numpy 2
    "numpy._core.numeric": "numpy.core.numeric",
}


class _PlainUnpickler(pickle.Unpickler):
    """Admits numpy's arrays, dtypes and scalars, and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[_ALIASES.get(module, module)][name]
        except KeyError:
            raise _RefusedError(
                f"holds {f'{module}.{name}'[:80]!r}, which is neither a numpy array nor a plain "
                "container"
            ) from None


def as_array(value: Any) -> np.ndarray | None:
    """Return a value of a plain pickle as an array of numbers; None if it is not one.

    Lists of numbers count as well. The array is read-only where it was an array.
    """
    if isinstance(value, _Array) and len(value.parts) == 4:
        shape, dtype, fortran, data = value.parts
        found = dtype.numeric() if isinstance(dtype, _Dtype) else None
        if found is None or not isinstance(shape, tuple) or len(shape) > 4:
            return None
        if not all(type(size) is int and size >= 0 for size in shape):
            return None
        if math.prod(shape) * found.itemsize != len(data):
            return None
        return np.frombuffer(data, found).reshape(shape, order="F" if fortran else "C")
    if not isinstance(value, list | tuple):
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # rows of different lengths
        return None
    return array if array.dtype.kind in "biuf" else None


def load_pickle(path: Path, remedy: str) -> Any:
    """Return the value of a pickle file; `as_array` reads its arrays.

    Raises:
        DataError: the file is missing, damaged, or holds anything but plain values and arrays.
            ``remedy`` ends the message.
    """
    with _one_error(path, remedy), path.open("rb") as stream:
        return _load(stream, path.stat().st_size)


def load_torch(path: Path, remedy: str) -> Any:
    """Return the value that ``torch.save`` wrote to a file; it may hold no tensor.

    Raises:
        DataError: as `load_pickle`.
    """
    with _one_error(path, remedy), path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            stream.seek(0)
            size = path.stat().st_size
            if _load(stream, size) != _TORCH_MAGIC:
                raise _RefusedError("is not what torch.save writes")
            _load(stream, size)  # version of the format
            _load(stream, size)  # byte order and sizes of the machine
            return _load(stream, size)
        with zipfile.ZipFile(stream) as archive:
            (member,) = [m for m in archive.infolist() if m.filename.endswith("/data.pkl")]
            if member.file_size > _MOST_UNPACKED:
                raise _RefusedError(f"claims to unpack to {member.file_size / 2**30:.1f} GiB")
            return _load(io.BytesIO(archive.read(member)), member.file_size)


def _load(stream: IO[bytes], size: int) -> Any:
    with _memory_limit(_MOST_PER_BYTE * size + _MOST_BESIDE):
        return _PlainUnpickler(stream).load()


@contextmanager
def _one_error(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except _RefusedError as error:
        raise DataError(f"{path}: {error}; {remedy}") from error
    except Exception as error:  # damaged bytes reach any instruction, so any exception is possible
        raise DataError(
            f"{path}: is not a readable pickle ({type(error).__name__}); {remedy}"
        ) from error


@contextmanager
def _memory_limit(most: int) -> Iterator[None]:
    """Let the process take ``most`` bytes more at most; MemoryError beyond (Linux only)."""
    used = Path("/proc/self/statm")
    if not used.exists():
        yield
        return
    limits = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(used.read_text().split()[0]) * resource.getpagesize() + most
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
