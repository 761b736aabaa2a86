"""EmbodiedScan's ``embodiedscan_infos_{train,val,test}.pkl`` as lists of candidate frames.

Of its ``data_list`` only ``sample_idx`` ("scannet/scene0000_00") and ``images[].img_path``
("scannet/posed_images/scene0000_00/00010.jpg") of ScanNet's scenes are used.

A pickle is a program. This one runs with an empty tool box: the names it may use are numpy's array,
dtype and scalar constructors, which here make an inert stand-in (arrays are not needed), and plain
containers. Any other name ends the reading before anything is called. Costs the memory of the
file's plain values (some GB for EmbodiedScan's train file); the arrays are dropped as they come.
A pickle may also ask for memory far beyond its size (a memo of billions of places, copies of
copies), so the process gets no more than a stated multiple of the file's size while it is read.
"""

import pickle
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import check_scene_name, read_result, write_json

FORMAT_VERSION = 1
_SCANNET = "scannet/"
_IMAGE = re.compile(r"(?:.*/)?(?P<scene>[^/]+)/(?P<frame>\d{1,9})\.(?:jpg|jpeg|png)")
_REMEDY = "download it again from EmbodiedScan"
# Memory for reading: a file's plain values take some ten times its size.
_MOST_PER_BYTE = 64
_MOST_BESIDE = 2**29


class _RefusedError(Exception):
    """The pickle asks for something that is not admitted; the message says what."""


class _Inert:
    """Stands for a numpy array, dtype or scalar, and for what makes one; holds and does nothing."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> "_Inert":
        _refuse_objects(arguments)
        return self

    def __setstate__(self, state: Any) -> None:
        _refuse_objects(state)


class _Latin1:
    """Stands for ``_codecs.encode``, by which pickle protocols up to 2 write bytes."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any = None) -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise _RefusedError("holds an encoding that numpy does not use")
        return text.encode("latin1")


def _refuse_objects(state: Any) -> None:
    """Refuse arrays of Python objects: their dtype is O, their content a list."""
    for part in state if isinstance(state, tuple) else ():
        if isinstance(part, list) or (isinstance(part, str) and part.lstrip("<>=|")[:1] == "O"):
            raise _RefusedError("holds a numpy array of Python objects")


# The types cannot be altered by a pickle and the stand-ins hold nothing, so the table stays as is.
_ADMITTED: dict[str, dict[str, Callable[..., Any]]] = {
    "numpy": {"ndarray": _Inert(), "dtype": _Inert()},
    "numpy.core.multiarray": {"_reconstruct": _Inert(), "scalar": _Inert()},
    "numpy.core.numeric": {"_frombuffer": _Inert()},
    "collections": {"OrderedDict": dict},
    "builtins": {"set": set, "frozenset": frozenset},
    "_codecs": {"encode": _Latin1()},
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


def read_candidates(path: Path) -> dict[str, list[int]]:
    """Return the frames of each of ScanNet's scenes that EmbodiedScan lists.

    Returns:
        scene -> frame ids (the numbers in the image names), ascending, each once. Entries of other
        data sets (3RScan, Matterport3D) are left out; a scene may have no frame.

    Raises:
        DataError: the file is missing, no pickle, holds anything but plain values and numpy
            arrays, or is not laid out as EmbodiedScan's.
    """
    path = Path(path)
    content = _load(path)
    entries = content.get("data_list") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{path}: holds no data_list; is it embodiedscan_infos_*.pkl?")
    candidates: dict[str, list[int]] = {}
    for position, entry in enumerate(entries):
        where = f"{path}: data_list[{position}]"
        sample = entry.get("sample_idx") if isinstance(entry, dict) else None
        if not isinstance(sample, str):
            raise DataError(f"{where}.sample_idx is missing or no text; {_REMEDY}")
        if not sample.startswith(_SCANNET):
            continue
        scene = check_scene_name(sample.removeprefix(_SCANNET), f"{where}.sample_idx")
        if scene in candidates:
            raise DataError(f"{where}: {scene} stands more than once; {_REMEDY}")
        candidates[scene] = _frame_ids(entry.get("images"), scene, where)
    if not candidates:
        raise DataError(f"{path}: lists no scene of ScanNet; {_REMEDY}")
    return candidates


def write_candidates(infos: Path, out: Path) -> None:
    """Write the lists of `read_candidates` as JSON, which a job reads in milliseconds.

    Raises:
        DataError: as `read_candidates`.
    """
    write_json(out, {"format_version": FORMAT_VERSION, "scenes": read_candidates(infos)})


def read_candidates_file(path: Path) -> dict[str, list[int]]:
    """Return scene -> frame ids from a file that `write_candidates` wrote.

    Raises:
        DataError: the file is missing, or of another format version.
    """
    scenes: dict[str, list[int]] = read_result(path, FORMAT_VERSION, "scenes")["scenes"]
    return scenes


def _load(path: Path) -> Any:
    try:
        most = _MOST_PER_BYTE * path.stat().st_size + _MOST_BESIDE
        with path.open("rb") as stream, _memory_limit(most):
            return _PlainUnpickler(stream).load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except _RefusedError as error:
        raise DataError(f"{path}: {error}; {_REMEDY}") from error
    except Exception as error:  # damaged bytes reach any instruction, so any exception is possible
        raise DataError(
            f"{path}: is not a readable pickle ({type(error).__name__}); {_REMEDY}"
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


def _frame_ids(images: Any, scene: str, where: str) -> list[int]:
    if not isinstance(images, list):
        raise DataError(f"{where}.images is not a list; {_REMEDY}")
    frames = set()
    for position, image in enumerate(images):
        name = image.get("img_path") if isinstance(image, dict) else None
        match = _IMAGE.fullmatch(name) if isinstance(name, str) else None
        if match is None or match["scene"] != scene:
            shown = repr(name[:80]) if isinstance(name, str) else "missing"
            raise DataError(
                f"{where}.images[{position}].img_path is {shown}, expected "
                f".../{scene}/<frame>.jpg; {_REMEDY}"
            )
        frames.add(int(match["frame"]))
    return sorted(frames)
