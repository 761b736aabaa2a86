"""The frames of a scan, from a .sens or an exported folder, with no payload read twice.

Memory: the payloads read and not let go; for coverage sampling that is for a while the compressed
depth of all candidates (150 of 250 kB).
"""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.posed_images import PosedImagesReader
from threedrs.scannet.sens import SensReader


class _Kept:
    """Payloads by kind and place."""

    def __init__(self) -> None:
        self._payloads: dict[tuple[str, int], bytes] = {}

    def get(self, kind: str, index: int, read: Callable[[int], bytes]) -> bytes:
        """Return the payload, from ``read`` the first time only."""
        if (kind, index) not in self._payloads:
            self._payloads[kind, index] = read(index)
        return self._payloads[kind, index]

    def keep_only(self, indices: Collection[int]) -> None:
        """Let go of the payloads of all other frames."""
        self._payloads = {key: data for key, data in self._payloads.items() if key[1] in indices}


class SensFrames(SensReader):
    """A .sens whose payloads are kept once read.

    Attributes:
        name: of the source, for provenance.
        frame_ids: (N,) int64, index in the stream of the frame at each place: 0..N-1.
    """

    def __init__(self, path: Path) -> None:
        self._kept = _Kept()
        super().__init__(path)
        self.name = self.path.name
        self.frame_ids = np.arange(len(self), dtype=np.int64)

    def color_bytes(self, index: int) -> bytes:
        """Return the colour payload at place ``index``, from the file the first time only."""
        return self._kept.get("color", index, super().color_bytes)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth payload at place ``index``, from the file the first time only."""
        return self._kept.get("depth", index, super().depth_bytes)

    def keep_only(self, indices: Collection[int]) -> None:
        """Let go of the payloads of the frames at all other places."""
        self._kept.keep_only(indices)


class ImageFrames(PosedImagesReader):
    """An exported folder whose payloads are kept once read.

    Attributes:
        name: of the source, for provenance.
    """

    def __init__(self, path: Path) -> None:
        self._kept = _Kept()
        super().__init__(path)
        self.name = f"{self.path.parent.name}/{self.path.name}"

    def color_bytes(self, index: int) -> bytes:
        """Return the JPEG at place ``index``, from its file the first time only."""
        return self._kept.get("color", index, super().color_bytes)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth PNG at place ``index``, from its file the first time only."""
        return self._kept.get("depth", index, super().depth_bytes)

    def keep_only(self, indices: Collection[int]) -> None:
        """Let go of the payloads of the frames at all other places."""
        self._kept.keep_only(indices)


Frames = SensFrames | ImageFrames


def open_frames(scan: ScanFiles) -> Frames:
    """Open the frames of ``scan`` from its source; a context manager.

    Raises:
        SensError, DataError: the source is missing or malformed.
    """
    return SensFrames(scan.sens) if scan.source == "sens" else ImageFrames(scan.posed_images)
