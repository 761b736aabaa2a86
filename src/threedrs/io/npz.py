"""``.npz`` files from elsewhere, looked at before numpy allocates or unpacks anything.

An archive of some kilobytes may claim arrays of any size, and zeros shrink a thousandfold. So the
headers are read first: an archive unpacks to no more than a stated limit, every member is an array
of plain numbers or texts, and exactly as long as its header says. Nothing pickled is ever read.
Costs one seek a member.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_npz(path: Path, limit: int) -> None:
    """Check that ``path`` is an archive of plain arrays that unpacks to at most ``limit`` bytes.

    Raises:
        OSError, zipfile.BadZipFile: the file cannot be read or is no archive.
        ValueError: it unpacks to more, or a member is no plain array or of another length.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > limit:
            raise ValueError(
                f"claims to unpack to {unpacked / 2**30:.1f} GiB, more than the "
                f"{limit / 2**30:.1f} GiB that such a file may hold"
            )
        for member in members:
            with archive.open(member) as stream:
                read_header = _HEADERS.get(np.lib.format.read_magic(stream))
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
                        f"{member.filename} of {member.file_size} bytes is no array of shape "
                        f"{shape} and dtype {dtype}"
                    )
