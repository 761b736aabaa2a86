"""The frames of a scan from its source, and frames turned by quarters."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.io.images import encode_image
from threedrs.scannet.frames import Frames
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.posed_images import JPEG_QUALITY, PosedImagesReader
from threedrs.scannet.sens import SensReader


def open_frames(scan: ScanFiles) -> Frames:
    """Open the frames of ``scan`` from its source; a context manager.

    Raises:
        SensError, DataError: the source is missing or malformed.
    """
    return SensReader(scan.sens) if scan.source == "sens" else PosedImagesReader(scan.posed_images)


class TurnedFrames(Frames):
    """The frames of a capture turned left by quarters, with intrinsic and poses of the turned.

    A phone that was held upright stores its images lying; a model knows them upright.
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

    # The capture's frames are closed by who opened them.

    def color(self, index: int) -> NDArray[np.uint8]:
        """Return the turned colour image at place ``index``: (H, W, 3) uint8, RGB."""
        return np.ascontiguousarray(np.rot90(self._frames.color(index), self._turns))

    def depth(self, index: int) -> NDArray[np.uint16]:
        """Return the turned depth image at place ``index``: (H, W) uint16, the header's units."""
        return np.ascontiguousarray(np.rot90(self._frames.depth(index), self._turns))

    def color_bytes(self, index: int) -> bytes:
        """Return the turned colour image at place ``index`` as a JPEG."""
        return encode_image(Image.fromarray(self.color(index)), "JPEG", quality=JPEG_QUALITY)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth payload at place ``index`` as captured, for content hashes."""
        return self._frames.depth_bytes(index)


def _turned(matrix: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the intrinsic of images of ``width`` after a quarter to the left."""
    turned = matrix.copy()
    turned[0, 0], turned[1, 1] = matrix[1, 1], matrix[0, 0]
    turned[0, 2], turned[1, 2] = matrix[1, 2], width - 1 - matrix[0, 2]
    return turned
