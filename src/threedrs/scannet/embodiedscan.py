"""EmbodiedScan's ``embodiedscan_infos_{train,val,test}.pkl``: frames, axis alignment, intrinsic.

Of its ``data_list`` these fields of ScanNet's scenes are used: ``sample_idx``
("scannet/scene0000_00"), ``images[].img_path`` ("scannet/posed_images/scene0000_00/00010.jpg"),
``axis_align_matrix`` and ``depth_cam2img``. Reading costs the memory of the file's plain values,
some GB for the train file, so one job a file writes what is used as JSON.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, check_external
from threedrs.io.files import check_scene_name, read_result, write_json
from threedrs.scannet.camera import is_rigid
from threedrs.scannet.layout import PREFIX
from threedrs.scannet.plain_pickle import as_array, load_pickle

FORMAT_VERSION = 2
_LARGEST = 1e6  # entry of a matrix: no room and no camera has a larger one, and NaN has none
_IMAGE = re.compile(r"(?:.*/)?(?P<scene>[^/]+)/(?P<frame>\d{1,9})\.(?:jpg|jpeg|png)")
_REMEDY = "download it again from EmbodiedScan"


class _Image(ExternalRow):
    img_path: str


class _Entry(ExternalRow):
    sample_idx: str
    # What follows is looked at in entries of ScanNet's scenes only.
    images: Any = None
    axis_align_matrix: Any = None
    depth_cam2img: Any = None


class _Infos(ExternalRow):
    data_list: list[_Entry]


@dataclass(frozen=True, kw_only=True)
class SceneInfos:
    """What EmbodiedScan says of a scene; matrices are (4,4), row by row, None where not given."""

    frames: list[int]  # frame ids (the numbers in the image names), ascending, each once
    # The scan's own frame to the axis-aligned world, metres.
    axis_alignment: list[list[float]] | None = None
    depth_intrinsic: list[list[float]] | None = None  # pinhole matrix of the depth image, pixels


def read_infos(path: Path) -> dict[str, SceneInfos]:
    """Return what a file says of each of ScanNet's scenes.

    Entries of other data sets (3RScan, Matterport3D) are left out. A scene may have no frame.

    Raises:
        DataError: the file is missing, no pickle, holds anything but plain values and numpy
            arrays, or is not laid out as EmbodiedScan's.
    """
    content = check_external(load_pickle(path, _REMEDY), _Infos, str(path), _REMEDY)
    infos: dict[str, SceneInfos] = {}
    for position, entry in enumerate(content.data_list):
        if not entry.sample_idx.startswith(PREFIX):
            continue
        where = f"{path}: data_list.{position}"
        scene = check_scene_name(entry.sample_idx.removeprefix(PREFIX), f"{where}.sample_idx")
        if scene in infos:
            raise DataError(f"{where}: {scene} stands more than once; {_REMEDY}")
        infos[scene] = SceneInfos(
            frames=_frame_ids(entry.images, scene, f"{where}.images"),
            axis_alignment=_matrix(entry.axis_align_matrix, f"{where}.axis_align_matrix", True),
            depth_intrinsic=_matrix(entry.depth_cam2img, f"{where}.depth_cam2img"),
        )
    if not infos:
        raise DataError(f"{path}: lists no scene of ScanNet; {_REMEDY}")
    return infos


def write_infos(infos: Path, out: Path) -> None:
    """Write what `read_infos` returns as JSON, which a job reads in milliseconds.

    Raises:
        DataError: as `read_infos`.
    """
    scenes = {scene: vars(found) for scene, found in read_infos(infos).items()}
    write_json(out, {"format_version": FORMAT_VERSION, "scenes": scenes})


def read_infos_files(paths: Iterable[Path]) -> dict[str, SceneInfos]:
    """Return the union of files that `write_infos` wrote: nothing says that the splits agree.

    EmbodiedScan's split of a scene may be another one than ScanNet's.

    Raises:
        DataError: a file is missing or of another format version, or two contradict each other.
    """
    union: dict[str, SceneInfos] = {}
    for path in paths:
        for scene, fields in read_result(path, FORMAT_VERSION, "scenes")["scenes"].items():
            found = SceneInfos(**fields)
            if union.setdefault(scene, found) != found:
                raise DataError(
                    f"{path}: {scene} stands in another of EmbodiedScan's files too, with other "
                    "values; download all of them again, of one version"
                )
    return union


def _matrix(value: Any, where: str, rigid: bool = False) -> list[list[float]] | None:
    if value is None:
        return None
    matrix = as_array(value)
    if matrix is None or matrix.shape != (4, 4) or not (np.abs(matrix) <= _LARGEST).all():
        raise DataError(f"{where} is not a 4x4 matrix of metres or pixels; {_REMEDY}")
    if rigid and not is_rigid(matrix):
        raise DataError(f"{where} is not a rotation and a translation; {_REMEDY}")
    return matrix.astype(np.float64).tolist()


def _frame_ids(images: Any, scene: str, where: str) -> list[int]:
    found = enumerate(check_external(images, list[_Image], where, _REMEDY))
    return sorted(
        {
            frame_of_image(image.img_path, scene, f"{where}.{position}.img_path", _REMEDY)
            for position, image in found
        }
    )


def frame_of_image(name: str, scene: str, where: str, remedy: str) -> int:
    """Return the frame that an image's path names, for instance .../scene0000_00/00010.jpg.

    Raises:
        DataError: it is not such a path, or one of another scene.
    """
    match = _IMAGE.fullmatch(name)
    if match is None or match["scene"] != scene:
        raise DataError(f"{where} is {name!r:.90}, expected .../{scene}/<frame>.jpg; {remedy}")
    return int(match["frame"])
