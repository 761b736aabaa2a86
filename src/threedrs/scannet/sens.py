"""Reading and writing ``.sens`` RGB-D streams of any size with the memory of one frame.

Opening reads the header and then only the 96-byte header of each frame, seeking over the payloads
(some 160 bytes of index a frame; a 6,000-frame scan opens in well under a second on a local disk).
Pixels are decoded when asked for. Reads are positioned, so threads may share a reader.

Every malformed file ends in :class:`SensError`. After the last frame a file may hold ScanNet's
motion-sensor records (a count and 128 bytes each). Any other trailing byte is an error.

Writing is one pass. The bytes depend on the input alone: payloads are carried over or compressed
at a fixed level, and timestamps are the caller's or 0. Compressing a 640x480 depth image takes
about 20 ms.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threedrs.errors import DataError
from threedrs.io.files import atomic_file
from threedrs.scannet import sens_format
from threedrs.scannet.camera import has_valid_pose
from threedrs.scannet.frames import Frames
from threedrs.scannet.sens_format import FRAME_HEADER, PayloadError, SensError, SensHeader


class SensReader(Frames):
    """Random access to the frames of a ``.sens`` file.

    Attributes:
        color_timestamps: (N,) uint64 microseconds.
        depth_timestamps: (N,) uint64 microseconds.

    Raises:
        SensError: the file is missing, malformed or unsupported; also later, by any method, if a
            payload is damaged or the file changed after it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self._descriptor = -1
        try:
            # Opening a named pipe would wait for its writer, so the kind of file is asked first.
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise SensError(self.path, "is not a regular file")
            self._descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise SensError(self.path, f"cannot be opened ({error.strerror})") from error
        try:
            state = os.fstat(self._descriptor)
            self._size, self._modified = state.st_size, state.st_mtime_ns
            self._read_index()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def color(self, index: int) -> NDArray[np.uint8]:
        """Decode the colour image of frame ``index``: (H, W, 3) uint8, RGB."""
        try:
            return sens_format.decode_color(self.color_bytes(index), self.header)
        except PayloadError as error:
            raise SensError(self.path, str(error), index, self._color_offset(index)) from error

    def depth(self, index: int) -> NDArray[np.uint16]:
        """Decode the depth image of frame ``index``: (H, W) uint16 in the header's units."""
        try:
            return sens_format.decode_depth(self.depth_bytes(index), self.header)
        except PayloadError as error:
            raise SensError(self.path, str(error), index, self._depth_offset(index)) from error

    def color_bytes(self, index: int) -> bytes:
        """Return the colour payload of frame ``index`` as it stands in the file."""
        return self._payload(index, self._color_offset(index), int(self._color_sizes[index]))

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth payload of frame ``index`` as it stands in the file."""
        return self._payload(index, self._depth_offset(index), int(self._depth_sizes[index]))

    def _read_index(self) -> None:
        self.header, count, self.header_bytes = sens_format.read_header(self.path, self._read)
        offset = len(self.header_bytes)
        if count > sens_format.MAX_FRAMES or count * FRAME_HEADER.size > self._size - offset:
            raise SensError(
                self.path,
                f"{count} frames are announced, the file of {self._size} bytes cannot hold them",
                offset=sens_format.frame_count_offset(self.header_bytes),
            )
        self.poses = np.empty((count, 4, 4), dtype=np.float64)
        self._offsets = np.empty(count, dtype=np.int64)
        words = np.empty((count, 4), dtype=np.uint64)
        for index in range(count):
            values = FRAME_HEADER.unpack(self._read(offset, FRAME_HEADER.size, index))
            self.poses[index] = np.reshape(values[:16], (4, 4))
            words[index] = values[16:]
            self._offsets[index] = offset
            color_size, depth_size = values[18:]
            try:
                sens_format.check_payload_sizes(color_size, depth_size, self.header)
            except PayloadError as error:
                raise SensError(self.path, str(error), index, offset + 80) from error
            end = offset + FRAME_HEADER.size + color_size + depth_size
            if end > self._size:
                raise SensError(
                    self.path,
                    f"the payloads end at byte {end}, the file has {self._size}: it is truncated",
                    index,
                    offset,
                )
            offset = end
        self.color_timestamps, self.depth_timestamps = words[:, 0], words[:, 1]
        self._color_sizes, self._depth_sizes = words[:, 2], words[:, 3]
        self.valid = has_valid_pose(self.poses)
        self.frame_ids = np.arange(count, dtype=np.int64)
        self._check_trailer(offset)

    def _check_trailer(self, offset: int) -> None:
        left = self._size - offset
        if left == 0:
            return
        last = len(self) - 1 if len(self) else None
        if left >= 8:
            records = int.from_bytes(self._read(offset, 8, last), "little")
            if left == 8 + records * sens_format.MOTION_RECORD_BYTES:
                return
        raise SensError(
            self.path,
            f"{left} bytes follow the last frame and are not a list of motion-sensor records",
            last,
            offset,
        )

    def _color_offset(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: frame {index} of {len(self)}")
        return int(self._offsets[index]) + FRAME_HEADER.size

    def _depth_offset(self, index: int) -> int:
        return self._color_offset(index) + int(self._color_sizes[index])

    def _payload(self, index: int, offset: int, size: int) -> bytes:
        payload = self._read(offset, size, index)
        state = os.fstat(self._descriptor)
        if (state.st_size, state.st_mtime_ns) != (self._size, self._modified):
            raise SensError(self.path, "the file changed after it was opened", index, offset)
        return payload

    def _read(self, offset: int, size: int, frame: int | None = None) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        if self._descriptor < 0:
            raise SensError(self.path, "the reader is closed", frame, offset)
        if offset + size > self._size:
            problem = f"{size} bytes are due, the file ends at {self._size}: it is truncated"
            raise SensError(self.path, problem, frame, offset)
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise SensError(self.path, problem, frame, offset) from error
        if len(data) < size:
            raise SensError(self.path, "the file shrank while being read", frame, offset)
        return data


class SensWriter:
    """Writes one ``.sens`` file; the block of `create` publishes it if it ends without an error."""

    def __init__(self, path: Path, header: SensHeader, stream: BinaryIO) -> None:
        self.path, self.header, self.frame_count = path, header, 0
        self._stream = stream

    @classmethod
    @contextmanager
    def create(cls, path: Path, header: SensHeader) -> Iterator[Self]:
        """Yield the writer of a new file, which takes the place of an older one."""
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            header_bytes = header.pack(0)
            stream.write(header_bytes)
            writer = cls(Path(path), header, stream)
            yield writer
            stream.seek(sens_format.frame_count_offset(header_bytes))
            stream.write(header.pack(writer.frame_count)[-8:])

    def add(
        self,
        pose: ArrayLike,
        color_bytes: bytes,
        depth: NDArray[np.uint16],
        color_timestamp: int = 0,
        depth_timestamp: int = 0,
    ) -> None:
        """Append one frame; timestamps are microseconds.

        Args:
            pose: (4, 4) camera to world, metres; stored as f32, non-finite values allowed (they
                mark a frame that was not localised).
            color_bytes: payload in the header's colour compression, carried over byte for byte.
            depth: (H, W) uint16 in the header's depth units, 0 for no measurement.

        Raises:
            DataError: a value does not fit the header; the message names file and frame.
        """
        where = f"{self.path}: frame {self.frame_count}"
        pose_44 = np.asarray(pose, dtype=np.float64)
        if pose_44.shape != (4, 4):
            raise DataError(f"{where}: pose has shape {pose_44.shape}, not (4, 4)")
        if self.frame_count == sens_format.MAX_FRAMES:
            raise DataError(f"{where}: a stream holds at most {sens_format.MAX_FRAMES} frames")
        if not all(0 <= time < 2**64 for time in (color_timestamp, depth_timestamp)):
            raise DataError(f"{where}: a timestamp is not between 0 and 2^64 - 1 microseconds")
        try:
            sens_format.check_color(color_bytes, self.header)
            depth_bytes = sens_format.encode_depth(depth, self.header)
            sens_format.check_payload_sizes(len(color_bytes), len(depth_bytes), self.header)
        except PayloadError as error:
            raise DataError(f"{where}: {error}") from error
        with np.errstate(over="ignore"):  # a value beyond f32 becomes infinite: an invalid pose
            pose_values = pose_44.astype(np.float32).ravel()
        self._stream.write(
            FRAME_HEADER.pack(
                *pose_values, color_timestamp, depth_timestamp, len(color_bytes), len(depth_bytes)
            )
        )
        self._stream.write(color_bytes)
        self._stream.write(depth_bytes)
        self.frame_count += 1
