"""Turning a posed RGB-D folder into a ``.sens`` scan.

One pass over the files with one frame in memory. Colour files become payloads byte for byte. Each
is decoded once to be sure of it. Depth PNGs are re-packed as zlib, their units stay as they are and
are stated in the header. Costs some 40 ms a frame of 640x480.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from threedrs.errors import DataError
from threedrs.scannet.rgbd_frames import RgbdFrames
from threedrs.scannet.sens import SensWriter

logger = logging.getLogger(__name__)


def import_rgbd(
    folder: Path,
    out: Path,
    *,
    intrinsic: str | Path | Sequence[float] | None = None,
    trajectory: Path | None = None,
    depth_shift: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Write the posed RGB-D images of ``folder`` to the ``.sens`` file ``out``.

    Args:
        intrinsic: four numbers or text ``fx,fy,cx,cy`` in pixels, or a file: that text, 3x3 or 4x4
            text, or Open3D's camera JSON. None: looked up in ``folder``. It holds for both images
            where they have one size; else ``folder/depth_intrinsic.txt`` is the depth camera's.

    Returns:
        The number of frames written.

    Raises:
        DataError: something is missing, malformed or contradictory; names file and remedy.
    """
    folder, out = Path(folder), Path(out)
    if out.is_dir():
        raise DataError(f"{out}: is a folder; name the .sens file to write")
    with (
        RgbdFrames(
            folder, intrinsic=intrinsic, trajectory=trajectory, depth_scale=depth_shift
        ) as reader,
        SensWriter(out, reader.header) as writer,
    ):
        times = reader.folder.timestamps or [(0, 0)] * len(reader)
        for index, pose in enumerate(reader.poses):
            say(f"frame {index + 1} of {len(reader)}")
            reader.color(index)  # decoded, so that no damaged image is handed on
            writer.add(pose, reader.color_bytes(index), reader.depth(index), *times[index])
    for note in reader.notes:
        logger.warning("%s", note)
    return len(reader)
