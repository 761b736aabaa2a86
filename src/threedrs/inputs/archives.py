"""Archives of the published data folder, unpacked to where the tree wants them.

A zip, tar or tar.gz, whole or cut into parts (``posed_images.part.aa``, ``.ab`` and so on, in this
order). Parts are joined while they are read, so no second copy of them is written. An archive
is named after the folder that it makes, and may hold that folder, with or without what stands above
it in the tree, or its content alone.

Archives come from elsewhere and are not trusted: only plain files and folders are written, below
the target and nowhere else, and of each file the bytes that its header announces. What is unpacked
appears whole or not at all. Costs one pass over the archive.
"""

import bisect
import errno
import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from threedrs.errors import DataError, counted, name_full_disk, one_line

# Folder of the published tree -> where it belongs below the data root.
PLACES = {
    **{name: f"scannet/{name}" for name in ("mask", "pcd_with_object_aabbs", "posed_images")},
    **{
        f"posed_images_3d_feature{teacher}": f"scannet/posed_images_3d_feature{teacher}"
        for teacher in ("", "_dinov2", "_siglip2", "_vggt")
    },
    **{name: name for name in ("balanced", "benchmark", "embodiedscan", "metadata", "processed")},
}
_NAME = re.compile(
    r"(?P<folder>.+?)(?P<kind>\.zip|\.tar\.gz|\.tgz|\.tar)?(?P<part>[._]part[._]?(?P<letters>[a-z]{2}))?"
)
_BLOCK = 512  # bytes
_END = 2 * _BLOCK  # of zeros end a tar, and a file in it is followed by less than one
_PIECE = 2**20
# Errors of the machine, which another copy of the archive would meet as well.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
# What other systems put into archives beside the content.
_JUNK = re.compile(r"(^|.*/)(__MACOSX(/.*)?|\.DS_Store|\._[^/]*)$")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive, as one file or as all of its parts in order."""

    folder: str  # the folder that it makes, a key of `PLACES`
    files: tuple[Path, ...]  # the file, or the parts in order


def archive_folder(name: str) -> str | None:
    """Return the folder of the published tree that an archive of this name makes, or None."""
    match = _NAME.fullmatch(name)
    if match is None or not (match["kind"] or match["part"]) or match["folder"] not in PLACES:
        return None
    return match["folder"]


def archive_stem(name: str) -> str:
    """Return the name of an archive without what tells its parts apart."""
    match = _NAME.fullmatch(name)
    return name if match is None else name.removesuffix(match["letters"] or "")


def find_archive(path: Path) -> Archive:
    """Return the archive that ``path`` is, or is a part of, with the parts that lie beside it.

    Raises:
        DataError: it is missing, of an unknown name, a part is missing, or it is the only part.
    """
    folder, match = archive_folder(path.name), _NAME.fullmatch(path.name)
    if folder is None or match is None:
        raise DataError(
            f"{path}: its name says no folder of the published data; rename it to one of "
            f"{', '.join(PLACES)} with .zip, .tar or .tar.gz"
        )
    if not path.is_file():
        raise DataError(f"{path}: is missing; download it, or check the name")
    if not match["part"]:
        return Archive(folder=folder, files=(path,))
    stem = archive_stem(path.name)
    parts = sorted(found for found in path.parent.glob(f"{stem}[a-z][a-z]") if found.is_file())
    for place, part in enumerate(parts):
        wanted = f"{stem}{chr(97 + place // 26)}{chr(97 + place % 26)}"
        if part.name != wanted:
            raise DataError(
                f"{path.with_name(wanted)}: this part of the archive is missing; download it into "
                "the same folder"
            )
    if len(parts) == 1:
        raise DataError(
            f"{path}: is one part of a split archive, and no other lies beside it; download all "
            "parts into the same folder"
        )
    return Archive(folder=folder, files=tuple(parts))


def unpack(archive: Archive, root: Path) -> Path | None:
    """Unpack an archive to its place below the data root; return it, or None where it is there.

    Raises:
        DataError: the archive is damaged, cut off, too large for the disk, or holds what it may
            not: links, devices, names that lead out of the folder.
    """
    target = root / PLACES[archive.folder]
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, and of one name: what a killed run left is removed by the next.
    temporary = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with name_full_disk(target), _one_error(archive):
            written = _extract(archive, temporary)
        if not written:
            raise DataError(f"{archive.files[0]}: holds no file; download it again")
        os.sync()  # once, as a folder of images has a million files
        if target.exists():
            target.rmdir()
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


@contextmanager
def _one_error(archive: Archive) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged bytes reach any line of the decoders
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        what, remedy = f"{archive.files[0]}", "download it again"
        if more := len(archive.files) - 1:
            what += f" and its {more} more parts"
            remedy += ", or the part of it that is missing at the end"
        raise DataError(f"{what}: cannot be unpacked ({one_line(error)}); {remedy}") from error


def _extract(archive: Archive, folder: Path) -> int:
    """Write the members below ``folder`` and return how many files there are."""
    name = archive.files[0]
    with JoinedFiles(archive.files) as raw, io.BufferedReader(raw, _PIECE) as stream:
        start = stream.peek(_BLOCK)[:_BLOCK]
        members = _Members(name=name, folder=folder, place=PLACES[archive.folder])
        if start.startswith(b"PK\x03\x04"):
            _extract_zip(stream, members)
        elif start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=stream) as unzipped:
                _extract_tar(cast("IO[bytes]", unzipped), members)
        elif start[257:262] == b"ustar":
            _extract_tar(stream, members)
        else:
            raise DataError(f"{name}: is neither a zip, a tar nor a tar.gz; download it again")
        return members.count


@dataclass(kw_only=True)
class _Members:
    """Writes members of an archive below a folder, after checks of name and size."""

    name: Path
    folder: Path
    place: str
    count: int = 0

    def write(self, member: str, size: int, source: IO[bytes]) -> None:
        """Write the ``size`` bytes that the header announces, which must be there."""
        target = self._target(member)
        if target is None:
            return
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise DataError(
                f"{self.name}: {member} takes {size / 2**30:.1f} GiB, of which the disk has "
                f"{free / 2**30:.1f}; make data.root a folder on a larger disk"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as stream:  # a second member of the same name is an error
            left = size
            while left and (piece := source.read(min(left, _PIECE))):
                stream.write(piece)
                left -= len(piece)
        if left or source.read(1):
            raise DataError(
                f"{self.name}: {member} has not the {size} bytes that its header announces; "
                "download the archive again, or the part of it that is missing at the end"
            )
        self.count += 1

    def refuse(self, member: str, what: str) -> DataError:
        """Return the error for a member that is neither file nor folder."""
        return DataError(
            f"{self.name}: {member[:120]!r} is {what}, which no published archive holds; "
            "download it again from its authors"
        )

    def _target(self, member: str) -> Path | None:
        """Return where a member belongs; None: it is of no use."""
        if "\\" in member or "\0" in member or member.startswith("/") or ".." in member.split("/"):
            raise self.refuse(member, "a name that leads out of the folder")
        if _JUNK.fullmatch(member):
            return None
        parts = PurePosixPath(member).parts
        # The archive holds its folder, perhaps with what stands above it, or the content alone.
        for above in (f"data/{self.place}", self.place, PurePosixPath(self.place).name):
            prefix = PurePosixPath(above).parts
            if parts[: len(prefix)] == prefix:
                parts = parts[len(prefix) :]
                break
        return self.folder.joinpath(*parts) if parts else None


def _extract_zip(stream: IO[bytes], members: _Members) -> None:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            # A length in the directory that is damaged swallows the entries behind it, and zipfile
            # says nothing.
            if b"PK\x01\x02" in info.extra + info.comment:
                raise DataError(
                    f"{members.name}: its directory is damaged at {info.filename[:120]!r} and "
                    "loses the files behind it; download it again, or its damaged part"
                )
            mode = info.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise members.refuse(info.filename, "a link or a device")
            if not info.is_dir():
                with archive.open(info) as source:
                    members.write(info.filename, info.file_size, source)


def _extract_tar(stream: IO[bytes], members: _Members) -> None:
    watched = _Tail(stream)
    # As a stream, without seeking: the archive is read once, and parts are joined on the way.
    with tarfile.open(fileobj=cast("IO[bytes]", watched), mode="r|", bufsize=_PIECE) as archive:
        for info in archive:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise members.refuse(info.name, "a link, a device or a sparse file")
            source = archive.extractfile(info)
            assert source is not None  # of a regular file
            members.write(info.name, info.size, source)
    while watched.read(_PIECE):  # what follows the end, and the checksum of a gzip
        pass
    # tarfile ends without an error at a header that is damaged or stands where a part is cut, so
    # what follows the last member has to be zeros alone. They fill what is missing of the last
    # file, which only the length of the whole, in blocks, can show.
    if watched.zeros < max(_END, watched.total - archive.offset) or watched.total % _BLOCK:
        raise DataError(
            f"{members.name}: the archive has no end, or is damaged after "
            f"{counted(members.count, 'file')}; download it again, all of its parts"
        )


@dataclass
class _Tail:
    """Reads from a stream and counts its bytes, and the zeros that it ends in."""

    stream: IO[bytes]
    total: int = 0
    zeros: int = 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        kept = len(data.rstrip(b"\0"))
        self.total += len(data)
        self.zeros = len(data) - kept + (0 if kept else self.zeros)
        return data


class JoinedFiles(io.RawIOBase):
    """Files one after another as one seekable stream, for reading."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._streams = [path.open("rb") for path in files]
        self._ends = [*accumulate(path.stat().st_size for path in files)]
        self._position = 0

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in: always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte of the whole."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes, of one file at a time."""
        number = bisect.bisect_right(self._ends, self._position)
        if number == len(self._ends):
            return 0
        stream = self._streams[number]
        stream.seek(self._position - (self._ends[number - 1] if number else 0))
        with name_full_disk(Path(stream.name)):
            count = stream.readinto(buffer)
        self._position += count
        return count

    def close(self) -> None:
        """Close all files."""
        for stream in self._streams:
            stream.close()
        super().close()
