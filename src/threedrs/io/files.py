"""Reading and writing files so that outputs appear whole or not at all.

Every writer builds its output under a temporary name in the target's own folder, syncs it to disk
and renames it, so a killed process leaves the old file or the new one, never half of either. Of a
folder that replaces another it may leave neither.
"""

import hashlib
import json
import math
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from threedrs.errors import DataError, name_full_disk, nearest_path, one_line

SCENE_NAME = re.compile(r"scene\d{4}_\d{2}")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # of an own capture's scene
# A temporary name; of a folder within such a folder, two.
LEFTOVER = re.compile(r"\.+(?P<name>.+?)\.(?P<process>\d+)\.tmp(\.\d+\.tmp)*")
# Bytes of a text that is read whole; the largest of the field's files has some 0.3 GB.
MOST_TEXT = 4 * 2**30
HASHED_AT_ONCE = 8  # files
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_JSON_REMEDY = "mend that place, or unpack, download or make the file again"


def check_scene_name(scene: str, where: str, form: re.Pattern[str] = SCENE_NAME) -> str:
    """Return ``scene`` if it is a ScanNet scene name, so that it is safe as part of a path.

    ``form`` allows other names.

    Raises:
        DataError: the name is not of the form ``scene0000_00``; ``where`` names its source.
    """
    if not isinstance(scene, str) or form.fullmatch(scene) is None:
        raise DataError(f"{where}: {scene!r} is not a scene name (expected e.g. scene0000_00)")
    return scene


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_leftover(path: Path, name: str | None = None) -> bool:
    """Whether ``path`` is what a killed writer (of the file or folder ``name``) left behind.

    What a process that lives on this machine is writing is none.
    """
    found = LEFTOVER.fullmatch(path.name)
    if found is None or (name is not None and found["name"] != name):
        return False
    process = int(found["process"])
    return process == os.getpid() or not Path(f"/proc/{process}").exists()


def _temporary_path(path: Path) -> Path:
    """Return where ``path`` is written before it is renamed; killed writers' leftovers go first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.iterdir():
        if is_leftover(other, path.name):
            if other.is_dir():
                shutil.rmtree(other, ignore_errors=True)
            else:
                other.unlink(missing_ok=True)
    # Beside the target, as a rename is whole only within a file system; with the process in its
    # name, so that the next writer knows a killed one's.
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed to ``path``."""
    temporary = _temporary_path(path)
    try:
        with name_full_disk(path):
            yield temporary
            sync(temporary)  # before the rename, or a power cut could leave the name without bytes
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, which on success takes the place of ``path``."""
    temporary = _temporary_path(path)
    old = temporary.with_name(f".{temporary.name}")
    temporary.mkdir()
    try:
        with name_full_disk(path):
            yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                sync(file)
        # A folder that is not empty cannot be renamed over, so the old one steps aside first.
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        sync(path.parent)
    finally:
        if old.exists() and not path.exists():  # interrupted between the two names
            old.replace(path)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> int:
    """Write one JSON value a line, whole or not at all; return the number of lines."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


@contextmanager
def _open_text(path: Path, most: int) -> Iterator[TextIO]:
    """Open a text of ``most`` bytes at most, and name it in what goes wrong within the block."""
    try:
        state = path.stat()
        # A named pipe would wait for its writer. Opening a folder says so in the system's words.
        if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
            raise DataError(f"{path}: cannot be read (it is not a regular file)")
        if state.st_size > most:
            raise DataError(
                f"{path}: has {state.st_size} bytes, such a text has at most {most}; copy it again"
            )
        # Editors of Windows begin a text with a mark that is no part of it.
        with path.open(encoding="utf-8-sig") as stream:
            yield stream
    except OSError as error:
        remedy = "check the path and who may read it"
        if isinstance(error, FileNotFoundError):
            remedy = nearest_path(path) or "put it there, or correct the path"
        raise DataError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(path)) from error


def _not_utf8(path: Path) -> str:
    return f"{path}: is not UTF-8 text; copy the file again, or save it as UTF-8"


def read_text(path: Path, *, most: int = MOST_TEXT) -> str:
    """Return the file's text, of ``most`` bytes at most.

    Raises:
        DataError: the file is missing, too large, no regular file, or not UTF-8.
    """
    with _open_text(path, most) as stream:
        text = stream.read()
    if "\0" in text:  # UTF-16 without a byte-order mark, which UTF-8 decodes all the same
        raise DataError(_not_utf8(path))
    return text


def read_json(path: Path) -> Any:
    """Return the file's JSON value.

    Raises:
        DataError: the file is missing, or not JSON; the message names line and column.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    # Beside a slip: nested too deeply, or more digits than Python converts.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({one_line(error)}); {_JSON_REMEDY}") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line of a text, as it stands there, after the file and number that name it.

    Raises:
        DataError: the file is missing, too large, no regular file, or not UTF-8.
    """
    with _open_text(path, MOST_TEXT) as stream:
        for number, line in enumerate(stream, start=1):
            yield f"{path}: line {number}", line


def parse_json(line: str, where: str) -> Any:
    """Return the JSON value of a line.

    Raises:
        DataError: it is not JSON; ``where`` names file and line.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON; {_JSON_REMEDY}") from error


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the JSON value of each line.

    Raises:
        DataError: the file is missing, or a line is not JSON; the message names the line.
    """
    return (parse_json(line, where) for where, line in read_lines(path))


def read_result(path: Path, version: int, target: str) -> dict[str, Any]:
    """Return the JSON object of one of this project's own results, of this ``format_version``.

    The message names the ``target`` that Snakemake is asked for to make it again.

    Raises:
        DataError: the file is missing, not JSON, or of another format version.
    """
    content = read_json(path)
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != version:
        raise DataError(
            f"{path}: is of format version {found!r}, expected {version}; delete it and run "
            f"`snakemake --cores all {target}`"
        )
    return dict(content)


def parse_numbers(text: str, where: str, remedy: str = "correct it") -> list[float]:
    """Return the white-space separated numbers of ``text`` (``inf`` and ``nan`` included).

    Raises:
        DataError: something is not a number; ``where`` names file and line.
    """
    try:
        return [float(word) for word in text.split()]
    except ValueError as error:
        raise DataError(f"{where}: {error}; {remedy}") from error


def check_npz(path: Path, limit: int) -> None:
    """Check that ``path`` is an archive of plain arrays that unpacks to at most ``limit`` bytes.

    Costs one seek a member.

    Raises:
        OSError, zipfile.BadZipFile: the file cannot be read or is not an archive.
        ValueError: it unpacks to more, or a member is not a plain array or is of another length.
    """
    with zipfile.ZipFile(path) as archive:
        # An archive of some kilobytes may claim arrays of any size, and zeros shrink a
        # thousandfold. So the headers are read before numpy allocates or unpacks anything.
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > limit:
            raise ValueError(
                f"claims to unpack to {unpacked / 2**30:.1f} GiB, more than the "
                f"{limit / 2**30:.1f} GiB that such a file may hold"
            )
        for member in members:
            with archive.open(member) as stream:
                read_header = _NPY_HEADERS.get(np.lib.format.read_magic(stream))
                if read_header is None:
                    raise ValueError(
                        f"{member.filename} is of an unknown version of numpy's format"
                    )
                shape, _, dtype = read_header(stream)
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds Python objects, which are not read")
                expected = math.prod(shape) * dtype.itemsize
                if min(shape, default=0) < 0 or stream.tell() + expected != member.file_size:
                    raise ValueError(
                        f"{member.filename} of {member.file_size} bytes is not an array of shape "
                        f"{shape} and dtype {dtype}"
                    )


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal."""
    with name_full_disk(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_files(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file."""
    # Several at a time: one core hashes 1.25 GB/s, and a disk gives more than that.
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return list(pool.map(sha256_of_file, paths))


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
