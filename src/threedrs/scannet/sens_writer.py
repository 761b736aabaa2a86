"""Writing ``.sens`` streams: one pass, one frame in memory, the file appears whole or not at all.

The bytes depend on the input alone: payloads are carried over or compressed at a fixed level, and
timestamps are the caller's or 0. Compressing a 640x480 depth image takes about 20 ms.
"""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threedrs.errors import DataError
from threedrs.io.files import atomic_file
from threedrs.scannet.sens_format import (
    FRAME_HEADER,
    MAX_FRAMES,
    SensHeader,
    frame_count_offset,
)
from threedrs.scannet.sens_payload import (
    PayloadError,
    check_color,
    check_payload_sizes,
    encode_depth,
)


class SensWriter:
    """Context manager that writes one ``.sens`` file; leaving it without an error publishes it."""

    def __init__(self, path: Path, header: SensHeader) -> None:
        self.path = Path(path)
        self.header = header
        self.frame_count = 0
        self._stack = ExitStack()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_file(self.path))
            self._stream = stack.enter_context(temporary.open("wb"))
            self._stream.write(self.header.pack(0))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stream, self._stream = self._stream, None
        if error is not None:
            self._stack.__exit__(kind, error, traceback)  # drops the temporary file
            return
        assert stream is not None
        with self._stack:
            header_bytes = self.header.pack(self.frame_count)
            stream.seek(frame_count_offset(header_bytes))
            stream.write(header_bytes[-8:])

    def add(
        self,
        pose: ArrayLike,
        color_bytes: bytes,
        depth: NDArray[np.uint16],
        color_timestamp: int = 0,
        depth_timestamp: int = 0,
    ) -> None:
        """Append one frame.

        Args:
            pose: (4, 4) camera to world, metres; stored as f32, non-finite values allowed (they
                mark a frame that was not localised).
            color_bytes: payload in the header's colour compression, carried over byte for byte.
            depth: (H, W) uint16 in the header's depth units, 0 for no measurement.
            color_timestamp: microseconds.
            depth_timestamp: microseconds.

        Raises:
            DataError: a value does not fit the header; the message names file and frame.
        """
        assert self._stream is not None, "SensWriter.add outside its with block"
        where = f"{self.path}: frame {self.frame_count}"
        pose_44 = np.asarray(pose, dtype=np.float64)
        if pose_44.shape != (4, 4):
            raise DataError(f"{where}: pose has shape {pose_44.shape}, not (4, 4)")
        if self.frame_count == MAX_FRAMES:
            raise DataError(f"{where}: a stream holds at most {MAX_FRAMES} frames")
        if not all(0 <= time < 2**64 for time in (color_timestamp, depth_timestamp)):
            raise DataError(f"{where}: a timestamp is not between 0 and 2^64 - 1 microseconds")
        try:
            check_color(color_bytes, self.header)
            depth_bytes = encode_depth(depth, self.header)
            check_payload_sizes(len(color_bytes), len(depth_bytes), self.header)
        except PayloadError as error:
            raise DataError(f"{where}: {error}") from error
        with np.errstate(over="ignore"):  # a value beyond f32 becomes infinite: an invalid pose
            pose_values = pose_44.astype(np.float32).ravel()
        self._stream.write(
            FRAME_HEADER.pack(
                *pose_values,
                color_timestamp,
                depth_timestamp,
                len(color_bytes),
                len(depth_bytes),
            )
        )
        self._stream.write(color_bytes)
        self._stream.write(depth_bytes)
        self.frame_count += 1
