"""The frames of a scan, open: of a .sens, of exported images, and turned by quarters.

All three give the same and are read frame by frame. Payloads of the first two are kept once read,
as the choice of frames looks at many of which the store then holds a few.
"""

import io
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.posed_images import JPEG_QUALITY, PosedImagesReader
from threedrs.scannet.sens import SensReader
from threedrs.scannet.sens_format import SensHeader


class _KeepsPayloads:
    """Payloads by kind and place, each read the first time only."""

    _payloads: dict[tuple[str, int], bytes]

    def keep_only(self, places: Collection[int]) -> None:
        """Let go of the payloads of the frames at all other places."""
        self._payloads = {key: data for key, data in self._payloads.items() if key[1] in places}

    def _once(self, kind: str, place: int, read: Callable[[int], bytes]) -> bytes:
        if (kind, place) not in self._payloads:
            self._payloads[kind, place] = read(place)
        return self._payloads[kind, place]


class SensFrames(_KeepsPayloads, SensReader):
    """A .sens file whose payloads are kept once read.

    Attributes:
        name: of the source, for provenance.
        frame_ids: (N,) int64, index in the stream of the frame at each place: 0..N-1.
    """

    def __init__(self, path: Path) -> None:
        self._payloads = {}
        super().__init__(path)
        self.name = self.path.name
        self.frame_ids = np.arange(len(self), dtype=np.int64)

    def color_bytes(self, index: int) -> bytes:
        """Return the colour payload at place ``index``, from the file the first time only."""
        return self._once("color", index, super().color_bytes)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth payload at place ``index``, from the file the first time only."""
        return self._once("depth", index, super().depth_bytes)


class ImageFrames(_KeepsPayloads, PosedImagesReader):
    """An exported folder whose payloads are kept once read; ``name`` is for provenance."""

    def __init__(self, path: Path) -> None:
        self._payloads = {}
        super().__init__(path)
        self.name = f"{self.path.parent.name}/{self.path.name}"

    def color_bytes(self, index: int) -> bytes:
        """Return the JPEG at place ``index``, from its file the first time only."""
        return self._once("color", index, super().color_bytes)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth PNG at place ``index``, from its file the first time only."""
        return self._once("depth", index, super().depth_bytes)


class Frames(Protocol):
    """A scan's frames, open, as a context manager; places and attributes as of `SensFrames`."""

    path: Path
    name: str
    header: SensHeader
    header_bytes: bytes
    frame_ids: np.ndarray
    poses: np.ndarray
    valid: np.ndarray

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def __len__(self) -> int: ...

    def color(self, index: int) -> NDArray[np.uint8]:
        """Decode the colour image at place ``index``: (H, W, 3) uint8, RGB."""

    def depth_millimetres(self, index: int) -> NDArray[np.uint16]:
        """Decode the depth image at place ``index``: (H, W) uint16, millimetres."""

    def color_bytes(self, index: int) -> bytes:
        """Return the colour image at place ``index``, compressed as the header says."""

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth image at place ``index`` as it stands in its source."""

    def keep_only(self, places: Collection[int]) -> None:
        """Let go of the payloads of the frames at all other places."""


def open_frames(scan: ScanFiles) -> Frames:
    """Open the frames of ``scan`` from its source; a context manager.

    Raises:
        SensError, DataError: the source is missing or malformed.
    """
    return SensFrames(scan.sens) if scan.source == "sens" else ImageFrames(scan.posed_images)


class TurnedFrames:
    """The frames of a capture turned left by quarters, with intrinsic and poses of the turned.

    A phone that was held upright stores its images lying; a model knows them upright.

    Args:
        frames: the capture's frames, open.
        turns: 1, 2 or 3 quarters to the left.
    """

    def __init__(self, frames: Frames, turns: int) -> None:
        self._frames, self._turns = frames, turns
        self.path, self.name, self.valid = frames.path, frames.name, frames.valid
        self.frame_ids, self.poses, header = frames.frame_ids, frames.poses, frames.header
        # A quarter to the left takes the image's right to its top, so x' = y and y' = -x.
        quarter = np.array([[0.0, -1.0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        for _ in range(turns):
            with np.errstate(invalid="ignore"):  # poses of frames that were not localised
                self.poses = np.where(self.valid[:, None, None], self.poses @ quarter, self.poses)
            header = replace(
                header,
                intrinsic_color=_turned(header.intrinsic_color, header.color_width),
                intrinsic_depth=_turned(header.intrinsic_depth, header.depth_width),
                color_width=header.color_height,
                color_height=header.color_width,
                depth_width=header.depth_height,
                depth_height=header.depth_width,
                color_compression="jpeg",
            )
        self.header = header
        self.header_bytes = header.pack(len(frames))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """The capture's frames are closed by who opened them."""

    def __len__(self) -> int:
        return len(self._frames)

    def color(self, index: int) -> NDArray[np.uint8]:
        """Return the turned colour image at place ``index``: (H, W, 3) uint8, RGB."""
        return np.ascontiguousarray(np.rot90(self._frames.color(index), self._turns))

    def depth_millimetres(self, index: int) -> NDArray[np.uint16]:
        """Return the turned depth image at place ``index``: (H, W) uint16, millimetres."""
        return np.ascontiguousarray(np.rot90(self._frames.depth_millimetres(index), self._turns))

    def color_bytes(self, index: int) -> bytes:
        """Return the turned colour image at place ``index`` as a JPEG."""
        stream = io.BytesIO()
        Image.fromarray(self.color(index)).save(stream, "JPEG", quality=JPEG_QUALITY)
        return stream.getvalue()

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth payload at place ``index`` as captured, for content hashes."""
        return self._frames.depth_bytes(index)

    def keep_only(self, places: Collection[int]) -> None:
        """Let go of the payloads of the frames at all other places."""
        self._frames.keep_only(places)


def _turned(matrix: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the intrinsic of images of ``width`` after a quarter to the left."""
    turned = matrix.copy()
    turned[0, 0], turned[1, 1] = matrix[1, 1], matrix[0, 0]
    turned[0, 2], turned[1, 2] = matrix[1, 2], width - 1 - matrix[0, 2]
    return turned
