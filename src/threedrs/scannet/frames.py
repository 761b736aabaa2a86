"""The frames of a scan, open: what a ``.sens``, exported images and an RGB-D folder have in common.

Frames are read one by one, from their source each time: a scan's few chosen frames are read twice,
the second time out of the system's own memory of the file.
"""

import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from threedrs.errors import DataError
from threedrs.io.images import ImageError, decode_depth_png
from threedrs.scannet.camera import to_millimetres, without_unmeasured
from threedrs.scannet.sens_format import PayloadError, SensHeader, decode_color, largest_payload


class Frames(ABC):
    """A scan's frames, open, as a context manager; they are counted by their place, 0..N-1.

    Attributes:
        path: the file or folder.
        name: of the source, for provenance.
        header: what holds for all frames.
        header_bytes: the header as a .sens holds it (for content hashes).
        frame_ids: (N,) int64, index in the stream of the frame at each place, ascending.
        poses: (N,4,4) f64 camera to world, metres.
        valid: (N,) bool, False where the pose holds a non-finite value or is all zero.
    """

    path: Path
    name: str
    header: SensHeader
    header_bytes: bytes
    frame_ids: NDArray[np.int64]
    poses: NDArray[np.float64]
    valid: NDArray[np.bool_]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None  # most sources are not held open

    def __len__(self) -> int:
        return len(self.poses)

    @abstractmethod
    def color(self, index: int) -> NDArray[np.uint8]:
        """Decode the colour image at place ``index``: (H, W, 3) uint8, RGB."""

    @abstractmethod
    def depth(self, index: int) -> NDArray[np.uint16]:
        """Decode the depth image at place ``index``: (H, W) uint16 in the header's units."""

    @abstractmethod
    def color_bytes(self, index: int) -> bytes:
        """Return the colour image at place ``index``, compressed as the header says."""

    @abstractmethod
    def depth_bytes(self, index: int) -> bytes:
        """Return the depth image at place ``index`` as it stands in its source."""

    def depth_millimetres(self, index: int) -> NDArray[np.uint16]:
        """Decode the depth image at place ``index``: (H, W) uint16 in millimetres.

        With another depth shift than ScanNet's 1000 values are rounded. 65535 and a distance beyond
        65.535 m become 0, no measurement.
        """
        return to_millimetres(without_unmeasured(self.depth(index)), self.header.depth_shift)


class LooseFrames(Frames):
    """Frames whose colour and depth images are files of their own.

    A method raises DataError if its image is missing, damaged or of another size.
    """

    color_files: Sequence[Path]
    depth_files: Sequence[Path]
    remedy: str  # what to do about a damaged image, the end of a message

    def color(self, index: int) -> NDArray[np.uint8]:
        """Decode the colour image at place ``index``: (H, W, 3) uint8, RGB."""
        try:
            return decode_color(self.color_bytes(index), self.header)
        except PayloadError as error:
            raise DataError(f"{self.color_files[index]}: {error}; {self.remedy}") from error

    def depth(self, index: int) -> NDArray[np.uint16]:
        """Decode the depth image at place ``index``: (H, W) uint16 in the header's units."""
        return read_depth_png(self.depth_files[index], self.header.depth_size, self.remedy)

    def color_bytes(self, index: int) -> bytes:
        """Return the colour image at place ``index`` as it stands in its file."""
        return _read_image(self.color_files[index], self.header.color_bytes, self.remedy)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth PNG at place ``index`` as it stands in its file."""
        return _read_image(self.depth_files[index], self.header.depth_bytes, self.remedy)


def read_depth_png(path: Path, size: tuple[int, int], remedy: str) -> NDArray[np.uint16]:
    """Return the values of a 16-bit PNG of ``size`` (width, height), (H, W) uint16; 65535 is 0.

    Raises:
        DataError: the file is missing, damaged or of another size.
    """
    payload = _read_image(path, 2 * size[0] * size[1], remedy)
    try:
        return without_unmeasured(decode_depth_png(payload, size))
    except ImageError as error:
        raise DataError(f"{path}: {error}; {remedy}") from error


def _read_image(path: Path, decoded_bytes: int, remedy: str) -> bytes:
    """Return the bytes of an image file, which is refused unread if it is absurdly large."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a named pipe would wait for its writer
            raise DataError(f"{path}: is not a regular file; {remedy}")
        if state.st_size > largest_payload(decoded_bytes):
            raise DataError(
                f"{path}: {state.st_size} bytes are absurd for an image of {decoded_bytes}"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
