"""Random access to the frames of a posed RGB-D folder, whichever layout it has, and their import.

What holds for all frames is found out at once, and each finding is a line of ``facts``: layout,
image sizes, intrinsic, depth units. What cannot be found out is asked for by name. Opening reads
the first bytes of every image and 20 depth images; pixels are decoded when asked for.

An import to a ``.sens`` is one pass over the files with one frame in memory. Colour files become
payloads byte for byte. Depth PNGs are re-packed as zlib, their units stay as they are and are
stated in the header. Costs some 40 ms a frame of 640x480.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.io.images import ImageError, image_size
from threedrs.scannet import camera, phone_exports, rgbd_folder
from threedrs.scannet.frames import LooseFrames, read_depth_png
from threedrs.scannet.pinhole import Size, find_intrinsics
from threedrs.scannet.sens import SensWriter
from threedrs.scannet.sens_format import SensHeader

logger = logging.getLogger(__name__)
_REMEDY = "copy it again"
SENSOR_NAME = "imported RGB-D folder"
_LOOKED_AT_FIRST = 20  # frames
_POSSIBLE_METRES = (0.3, 15.0)  # median depth of a room


class RgbdFrames(LooseFrames):
    """The frames of a folder, counted 0..N-1, as `threedrs.scannet.sens.SensReader` gives them.

    Attributes:
        folder: its frames' files and poses.
        facts: what was found out, a line each.
        notes: those of the facts that a user may want to change.
        header: what holds for all frames; ``depth_shift`` is the depth images' units a metre.

    Args:
        intrinsic: of the colour images, as `threedrs.scannet.pinhole.find_intrinsics` takes it.
        trajectory: a file or folder of poses outside the folder, or where it has several.
        depth_scale: depth units a metre, where the format does not say.

    Raises:
        DataError: something is missing, malformed or contradictory; also later, by any method, if
            an image is damaged.
    """

    def __init__(
        self,
        path: Path,
        *,
        intrinsic: str | Path | Sequence[float] | None = None,
        trajectory: Path | None = None,
        depth_scale: float | None = None,
    ) -> None:
        self.path, self.name, self.remedy = path, path.resolve().name, _REMEDY
        self.folder = list_frames(path, trajectory)
        if trajectory is not None and not self.folder.takes_trajectory:
            raise DataError(
                f"{path}: the layout of {self.folder.layout} holds its own poses; leave out "
                "--trajectory"
            )
        self.color_files, self.depth_files = self.folder.color_files, self.folder.depth_files
        self.poses = self.folder.poses
        self.valid = camera.has_valid_pose(self.poses)
        self.frame_ids = np.arange(len(self), dtype=np.int64)
        color_size = _common_size(self.color_files, "colour")
        depth_size = _common_size(self.depth_files, "depth")
        sizes = "colour {}x{}, depth {}x{}".format(*color_size, *depth_size)
        if (color_size[0] - color_size[1]) * (depth_size[0] - depth_size[1]) < 0:
            raise DataError(
                f"{path}: one kind of images was turned ({sizes}); turn the colour images back as "
                "the camera took them (poses and intrinsic are of that)"
            )
        color_matrix, depth_matrix, doubts = find_intrinsics(
            path,
            intrinsic or self.folder.intrinsic,
            color_size,
            depth_size,
            registered=self.folder.registered,
        )
        units, units_fact, unusual = self._units(depth_size, depth_scale)
        self.header = SensHeader(
            sensor_name=SENSOR_NAME,
            intrinsic_color=color_matrix,
            intrinsic_depth=depth_matrix,
            color_compression=rgbd_folder.COLOR_SUFFIXES[self.color_files[0].suffix.lower()],
            depth_compression="zlib",
            color_width=color_size[0],
            color_height=color_size[1],
            depth_width=depth_size[0],
            depth_height=depth_size[1],
            depth_shift=units,
        )
        self.header_bytes = self.header.pack(len(self))
        doubts += camera.check_poses(
            self.poses, lambda index: f"{path}: pose of {self.color_files[index].name}"
        )
        self.notes = [*self.folder.notes, *unusual, *doubts]
        pinhole = ",".join(f"{value:g}" for value in depth_matrix[camera.PINHOLE])
        self.facts = [
            f"layout: {self.folder.layout}, {len(self)} frames",
            f"images: {sizes}, intrinsic of depth {pinhole}",
            units_fact,
            *self.notes,
        ]

    def _units(self, size: Size, given: float | None) -> tuple[float, str, list[str]]:
        """Return the depth units a metre, how they were found, and notes on unusual depths.

        They are as given, as the format has it, or the only plausible ones.
        """
        if given is not None and not given > 0:
            raise DataError(f"--depth-scale {given:g}: give the depth units a metre, as 1000")
        # A wrong scale is refused by frames spread over the capture, before minutes go into all.
        some = self.depth_files[:: -(-len(self) // _LOOKED_AT_FIRST)]
        counts = np.sum(
            [camera.count_depths(read_depth_png(f, size, _REMEDY)) for f in some], axis=0
        )
        median, allowed = camera.median_depth(counts), self.folder.units_per_metre
        how = self.folder.units_source
        if given is not None:
            allowed, how = (given,), "as given"
        elif not median:
            allowed = allowed[:1]  # no scale helps, and the check below says so
        elif len(allowed) > 1:
            least, most = _POSSIBLE_METRES
            plausible = [units for units in allowed if least <= median / units <= most]
            if len(plausible) != 1:
                choices = " or ".join(f"--depth-scale {units:g}" for units in allowed)
                raise DataError(
                    f"{self.path}: the trajectory is TUM's, whose depth images have 5000 units a "
                    f"metre, while other tools write 1000 (median {median / allowed[0]:.2g} or "
                    f"{median / allowed[1]:.2g} m); say which by {choices}"
                )
            allowed, how = tuple(plausible), "the only one of 5000 and 1000 that fits a room"
        (units,) = allowed
        where = str(some[0].parent)
        notes = camera.check_depths(counts, units, where, "give --depth-scale")
        fact = f"depth: {units:g} units a metre ({how}), median {median / units:.2f} m"
        return units, fact, [f"{where}: {note}" for note in notes]


def list_frames(folder: Path, trajectory: Path | None = None) -> rgbd_folder.RgbdFolder:
    """List the frames of a folder in any of the layouts that its files tell; no image is opened.

    Raises:
        DataError: the folder is of no known layout, or incomplete.
    """
    for home in (folder, folder / "iphone"):
        if (home / phone_exports.SCANNETPP_POSES).is_file():
            return phone_exports.read_scannetpp(home)
    if (folder / phone_exports.ARKIT_TRAJECTORY).is_file():
        return phone_exports.read_arkitscenes(folder)
    if folder.is_dir() and next(folder.glob("*.color.*"), None) is not None:
        return rgbd_folder.read_seven_scenes(folder)
    if sequences := sorted(path.name for path in folder.glob("seq-*") if path.is_dir()):
        raise DataError(f"{folder}: holds {', '.join(sequences)}; name one of them")
    return rgbd_folder.read_rgbd_folder(folder, trajectory)


def import_rgbd(
    folder: Path,
    out: Path,
    *,
    intrinsic: str | Path | Sequence[float] | None = None,
    trajectory: Path | None = None,
    depth_scale: float | None = None,
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
    # What is there is replaced, so no other file may be named by mistake.
    if out.suffix.lower() != ".sens" or out.is_dir():
        raise DataError(f"{out}: is not the name of a scan; name the .sens file to write")
    with (
        RgbdFrames(
            folder, intrinsic=intrinsic, trajectory=trajectory, depth_scale=depth_scale
        ) as reader,
        SensWriter.create(out, reader.header) as writer,
    ):
        times = reader.folder.timestamps or [(0, 0)] * len(reader)
        for index, pose in enumerate(reader.poses):
            say(f"frame {index + 1} of {len(reader)}")
            reader.color(index)  # decoded, so that no damaged image is handed on
            writer.add(pose, reader.color_bytes(index), reader.depth(index), *times[index])
    for note in reader.notes:
        logger.warning("%s", note)
    return len(reader)


def _common_size(files: Sequence[Path], what: str) -> Size:
    """Return the (width, height) that all images have."""
    sizes = []
    for path in files:
        try:
            sizes.append(image_size(path))
        except ImageError as error:
            raise DataError(f"{path}: {error}") from error
    if other := [index for index, size in enumerate(sizes) if size != sizes[0]]:
        (width, height), (first_width, first_height) = sizes[other[0]], sizes[0]
        raise DataError(
            f"{files[other[0]]}: has {width}x{height} pixels, the first {what} image "
            f"{first_width}x{first_height}, and {len(other)} of {len(files)} differ; one intrinsic "
            "holds for all, so move the others to a capture of their own"
        )
    return sizes[0]
