"""What others have published about a scene's frames: candidates, matrices, chosen frames, voxels.

Three files of the published folder stand in for a look at the scan:

- EmbodiedScan's infos list the candidate frames and give axis alignment and depth intrinsic;
- ``scannet_select_frames.json`` lists up to 32 frames by coverage, in the order of choice. It holds
  an array with an entry a scene: ``video_id`` ("scannet/scene0000_00"), ``frame_files``
  ("data/scannet/posed_images/scene0000_00/00010.jpg"), ``voxel_nums`` (the voxels that each frame
  adds) and ``num_all_voxels`` (those that all frames looked at see). Equal gains were drawn at
  random there, so the order cannot be computed again;
- ``pcd_discrete_0.1.pkl`` holds the voxels of the scenes' point clouds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, NonNegativeInt

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, read_external_json
from threedrs.scannet.embodiedscan import SceneInfos, frame_of_image, read_infos_files
from threedrs.scannet.layout import PREFIX
from threedrs.scannet.point_cloud import read_voxels

_REMEDY = "copy the file again, or take data.selected_frames out of the configuration"


class _Selection(ExternalRow):
    video_id: str
    frame_files: list[str] = Field(min_length=1)
    voxel_nums: list[NonNegativeInt]
    num_all_voxels: NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class SelectedFrames:
    """Frames that a scene's entry of ``scannet_select_frames.json`` lists."""

    frames: tuple[int, ...]  # indices in the stream, in the order of choice
    gains: tuple[int, ...]  # the voxels that each of them adds
    coverable: int  # the voxels that all frames looked at see


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedLists:
    """What is published about a scene; each part is None where it is not."""

    infos: SceneInfos | None = None  # EmbodiedScan's candidate frames and matrices
    selected: SelectedFrames | None = None  # frames chosen by coverage
    # (M,3) i32 voxels of the point cloud, aligned world coordinates / 0.1 m.
    voxels_M3: np.ndarray | None = None
    voxels_source: str = "data.voxels"  # what an error about them names


def read_published_lists(
    scenes: Collection[str],
    *,
    infos: Sequence[Path] = (),
    selected: Path | None = None,
    voxels: Path | None = None,
) -> dict[str, PublishedLists]:
    """Return what is published about each of ``scenes``.

    Raises:
        DataError: a file is missing or malformed; the message names entry and field.
    """
    found_infos = read_infos_files(infos)
    found_frames = {} if selected is None else read_selected_frames(selected, scenes)
    return {
        scene: PublishedLists(
            infos=found_infos.get(scene),
            selected=found_frames.get(scene),
            voxels_M3=None if voxels is None else read_voxels(voxels, scene),
        )
        for scene in scenes
    }


def read_selected_frames(path: Path, scenes: Collection[str]) -> dict[str, SelectedFrames]:
    """Return those of ``scenes`` that ``scannet_select_frames.json`` lists.

    Raises:
        DataError: the file is missing or malformed; the message names the entry.
    """
    found: dict[str, SelectedFrames] = {}
    for position, entry in enumerate(read_external_json(path, list[_Selection], _REMEDY)):
        where, scene = f"{path}: entry {position}", entry.video_id.removeprefix(PREFIX)
        if scene not in scenes:
            continue
        if scene in found:
            raise DataError(f"{where}: {scene} stands more than once; {_REMEDY}")
        frames = [
            frame_of_image(name, scene, f"{where}.frame_files.{number}", _REMEDY)
            for number, name in enumerate(entry.frame_files)
        ]
        if len(set(frames)) != len(frames):
            raise DataError(f"{where}.frame_files names an image twice; {_REMEDY}")
        if len(entry.voxel_nums) != len(frames):
            raise DataError(f"{where}.voxel_nums is not a number for each image; {_REMEDY}")
        found[scene] = SelectedFrames(
            frames=tuple(frames), gains=tuple(entry.voxel_nums), coverable=entry.num_all_voxels
        )
    return found
