"""From an own RGB-D capture to a scene store: found out, turned so that it stands, and stored.

A capture is a folder of posed images in one of the layouts of `threedrs.scannet.rgbd_frames`, an
exported ``posed_images`` folder, or a ``.sens``. It needs no lists, labels or mesh. What coverage
chooses frames by is the cloud of the capture's own depth images.

One decoded depth image is in memory at a time, and a cloud of a point every 4 cm. A room of 200
frames takes some 10 seconds, most of it the decoding.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threedrs.errors import ConfigError, DataError, choose_one
from threedrs.io.files import SAFE_NAME, read_json
from threedrs.scannet.boxes import BoxSet, make_box_set
from threedrs.scannet.camera import check_poses
from threedrs.scannet.embodiedscan import SceneInfos
from threedrs.scannet.frames import Frames
from threedrs.scannet.geometry import unproject
from threedrs.scannet.layout import DataLayout
from threedrs.scannet.posed_images import PosedImagesReader
from threedrs.scannet.prepared_boxes import listed_scenes, read_prepared_boxes
from threedrs.scannet.rgbd_frames import RgbdFrames
from threedrs.scannet.sens import SensReader
from threedrs.scenes.build import read_inputs, write_scene
from threedrs.scenes.clusters import ROUGH, cluster_boxes
from threedrs.scenes.coverage import VOXEL
from threedrs.scenes.frame_reader import TurnedFrames
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.published_lists import PublishedLists
from threedrs.scenes.store import SceneStore
from threedrs.scenes.upright import AXES, find_planes, quarter_turns, stand_up

SPLIT = "own"
"""What a capture's store has as its split."""
_CLOUD_FRAMES, _CLOUD_VOXEL = 200, 0.04  # frames, metres
_CLOUD_COLUMNS = 160  # about as many of a depth image are looked at
_POSE_FRAMES, _POSE_COLUMNS = 40, 80  # looked at to tell what the poses are
_GIVEN, _OPENGL = "camera to world", np.diag([1.0, -1.0, -1.0, 1.0])
# Share of the voxels from which another convention is the right one. Frames of a room fill three to
# eight times as many under a wrong one, and ten frames all around it twice as many.
_FEWER = 0.65
_MOST_CANDIDATES = 600  # frames that coverage chooses from; it looks at every second


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """What a user may say of a capture; None: it is found out."""

    up: str | None = None  # an axis of the capture's world, as ``y`` or ``-z``
    depth_scale: float | None = None  # depth units a metre
    intrinsic: str | None = None  # fx,fy,cx,cy in pixels, or a file
    trajectory: Path | None = None
    boxes: Path | None = None  # a prepared box file that has the scene, in the capture's world
    frames: int = 32  # the most that the store holds


def build_capture(
    capture: Path,
    out: Path,
    options: CaptureOptions,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[SceneStore, list[str]]:
    """Build the scene store ``out`` of a capture, whole or not at all; return it and its facts.

    The facts, a line each, say what was found out and how; they are also the store's notes.

    Args:
        out: ``NAME.zarr``; NAME is the scene's name. An older store is replaced.

    Raises:
        ConfigError: an option or a name cannot be used.
        DataError: the capture cannot be read, or something has to be said by an option.
    """
    scene = _scene_name(out)
    given = _check_typed(options, scene)
    say(f"opening {capture}")
    with open_capture(capture, options) as frames:
        posed, facts = _posed_frames(frames)
        say("comparing what frames see")
        frames.poses, found = settle_poses(frames, posed)
        facts += found
        cloud_P3 = _cloud(frames, posed, say)
        say("looking for floor and walls")
        planes = find_planes(cloud_P3)
        standing = stand_up(
            cloud_P3,
            planes,
            frames.poses[posed],
            asked=options.up,
            gravity=frames.folder.up if isinstance(frames, RgbdFrames) else None,
            # Boxes along the capture's axes would no longer fit a scene that is turned off them.
            along_walls=given is None,
        )
        turned, said = _turned_frames(frames, standing.alignment @ frames.poses[posed])
        facts += [*standing.facts, *said]
        if given is None:
            boxes, source = cluster_boxes(cloud_P3, planes, standing.alignment), ROUGH
        else:
            boxes, source = _turned_boxes(given, standing.alignment), f"of {options.boxes}, turned"
        facts.append(f"boxes: {source}: {len(boxes)}")
        say("choosing frames by what they see")
        stride = -(-len(posed) // _MOST_CANDIDATES)
        inputs = read_inputs(
            DataLayout(root=capture).own_scan(scene),
            turned,
            {"gt": make_box_set(), "pred": boxes},
            SceneSettings(stride=stride, strategy="coverage", count=options.frames),
            SPLIT,
            _own_lists(capture, frames.frame_ids[posed[::stride]], cloud_P3, standing.alignment),
        )
        count = len(inputs.selection.frame_ids)
        facts.append(f"frames: {count} of {len(posed)}, by what they see of the room")
        inputs.attributes["notes"] = [*facts, *inputs.attributes["notes"]]
        say(f"writing {out}")
        store = write_scene(inputs, out)
    return store, store.attributes["notes"]


def _own_lists(
    capture: Path, candidates: NDArray, cloud_P3: NDArray[np.float64], alignment: NDArray
) -> PublishedLists:
    """Return what is published of a scan of ScanNet, of a capture.

    These are frames to choose from, how it is turned, and the voxels that are there to be seen.
    """
    points_P3 = cloud_P3 @ alignment[:3, :3].T + alignment[:3, 3]
    return PublishedLists(
        infos=SceneInfos(frames=candidates.tolist(), axis_alignment=alignment.tolist()),
        voxels_M3=np.rint(points_P3 / VOXEL).astype(np.int32),
        voxels_source=str(capture),
    )


def check_target(out: Path, *, replace: bool) -> None:
    """Check that a store may be written to ``out``: nothing is there, or a store to ``replace``.

    Raises:
        ConfigError: the name cannot be used, or what is there has to stay.
        DataError: what is there cannot be read.
    """
    _scene_name(out)
    if not out.exists():
        return
    # A folder of the user's own, or another zarr store, would be lost with all it holds.
    found = read_json(out / "zarr.json") if (out / "zarr.json").is_file() else {}
    if "scene" not in found.get("attributes", {}):
        raise ConfigError(
            f"{out}: is there, and is not a scene store to replace; give another name"
        )
    if not replace:
        raise ConfigError(f"{out}: exists; give --force to replace it, or another name")


def _scene_name(out: Path) -> str:
    if out.suffix != ".zarr" or SAFE_NAME.fullmatch(out.stem) is None:
        raise ConfigError(
            f"{out}: name the store NAME.zarr, with a NAME of letters, digits, ._- (64 at most)"
        )
    return out.stem


def _check_typed(options: CaptureOptions, scene: str) -> dict[str, Any] | None:
    """Return the given boxes; what is typed wrong is said before all else."""
    if options.up is not None and options.up not in AXES:
        raise ConfigError(f"--up {options.up}: {choose_one(options.up, AXES)}")
    return None if options.boxes is None else _given_boxes(options.boxes, scene)


def _posed_frames(frames: Frames) -> tuple[NDArray[np.intp], list[str]]:
    """Return which frames have a pose, and what opening the capture found out."""
    posed = np.flatnonzero(frames.valid)
    if not len(posed):
        remedy = "track the capture again and export it anew"
        if isinstance(frames, RgbdFrames) and frames.folder.takes_trajectory:
            remedy = "give the poses by --trajectory"
        raise DataError(f"{frames.path}: no frame has a pose; {remedy}")
    if isinstance(frames, RgbdFrames):
        facts = [*frames.facts]
    else:
        facts = [f"layout: {frames.path.suffix or 'posed_images'}, {len(frames)} frames"]
        check_poses(frames.poses, lambda index: f"{frames.path}: frame {index}")
    if len(posed) < len(frames):
        facts.append(f"poses: {len(frames) - len(posed)} frames have none: left out")
    return posed, facts


def open_capture(capture: Path, options: CaptureOptions) -> Frames:
    """Open the frames of a capture; a context manager.

    Raises:
        ConfigError: an option is given for what the capture's format states.
        DataError: the capture is missing, malformed, or of no known layout.
    """
    if not capture.exists():
        raise DataError(
            f"{capture}: does not exist; name a folder of posed RGB-D images, or a .sens"
        )
    if (capture / "zarr.json").is_file():
        raise DataError(
            f"{capture}: is a scene store already; "
            f"`{shlex.join(['threedrs', 'scene', 'show', str(capture)])}` draws it"
        )
    given = {
        "--depth-scale": options.depth_scale,
        "--intrinsic": options.intrinsic,
        "--trajectory": options.trajectory,
    }
    exported = (capture / "depth_intrinsic.txt").is_file() and any(capture.glob("[0-9]*.jpg"))
    if capture.suffix.lower() == ".sens" or exported:
        if named := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f"{capture}: its format states what {' and '.join(named)} would say; leave it out"
            )
        return PosedImagesReader(capture) if exported else SensReader(capture)
    return RgbdFrames(
        capture,
        intrinsic=options.intrinsic,
        trajectory=options.trajectory,
        depth_scale=options.depth_scale,
    )


def settle_poses(frames: Frames, posed: NDArray[np.intp]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the poses as camera to world, (N,4,4) with y down and z ahead, and what was found.

    Args:
        posed: (F,) places of the frames that have a pose.
    """
    import open3d

    # Tools write world-to-camera matrices, or cameras that look along -z with y up, and no matrix
    # tells which it is. But only as what they are do frames show one surface, which fills far fewer
    # voxels than each frame's surface at a place of its own.
    inverted = frames.poses.copy()
    inverted[posed] = np.linalg.inv(frames.poses[posed])
    conventions = {_GIVEN: frames.poses, "world to camera": inverted}
    for name, poses in [*conventions.items()]:
        with np.errstate(invalid="ignore"):  # poses that are not finite stay so
            conventions[f"{name} with OpenGL's axes"] = poses @ _OPENGL
    some = posed[:: -(-len(posed) // _POSE_FRAMES)].tolist()
    seen = {place: _points(frames, place, np.eye(4), _POSE_COLUMNS) for place in some}
    voxels = {}
    for name, poses in conventions.items():
        world = [points @ poses[i, :3, :3].T + poses[i, :3, 3] for i, points in seen.items()]
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(np.concatenate(world)))
        voxels[name] = len(cloud.voxel_down_sample(VOXEL).points) if len(cloud.points) else 0
    best = min(voxels, key=lambda name: voxels[name])
    if voxels[best] > _FEWER * voxels[_GIVEN]:
        return frames.poses, []
    return conventions[best], [
        f"poses: {best}, as frames then see one surface of {voxels[best]} voxels of {VOXEL} m, and "
        f"{voxels[_GIVEN]} voxels as {_GIVEN}; they were converted"
    ]


def _points(
    frames: Frames, place: int, pose: NDArray[np.float64], columns: int
) -> NDArray[np.float64]:
    """Return what some pixels of a frame measure, (P,3) metres; ``columns`` are looked at."""
    width, height = frames.header.depth_size
    step = max(1, width // columns)
    depth_HW = frames.depth_millimetres(place)[::step, ::step]
    world_HW3 = unproject(
        depth_HW,
        frames.header.intrinsic_depth,
        pose,
        columns_W=np.arange(0, width, step),
        rows_H=np.arange(0, height, step),
    )
    return world_HW3[depth_HW > 0]


def _cloud(
    frames: Frames, posed: NDArray[np.intp], say: Callable[[str], None]
) -> NDArray[np.float64]:
    """Return the points, (P,3) metres of the capture's world, that up to 200 frames measure."""
    import open3d

    some = posed[:: -(-len(posed) // _CLOUD_FRAMES)].tolist()
    cloud = open3d.geometry.PointCloud()
    for number, place in enumerate(some, start=1):
        say(f"reading depth, frame {number} of {len(some)}")
        points_P3 = _points(frames, place, frames.poses[place], _CLOUD_COLUMNS)
        cloud += open3d.geometry.PointCloud(
            open3d.utility.Vector3dVector(points_P3)
        ).voxel_down_sample(_CLOUD_VOXEL)
        if number % 20 == 0:  # so that the memory stays that of the room
            cloud = cloud.voxel_down_sample(_CLOUD_VOXEL)
    points_P3 = np.asarray(cloud.voxel_down_sample(_CLOUD_VOXEL).points)
    if len(points_P3) < 100:
        raise DataError(f"{frames.path}: its depth images measure next to nothing; check them")
    return points_P3


def _given_boxes(path: Path, scene: str) -> dict[str, Any]:
    """Return the user's boxes of the scene, in the capture's world."""
    found = read_prepared_boxes(path, [scene])
    if scene not in found:
        names = ", ".join(sorted(listed_scenes(path))[:5]) or "none"
        raise DataError(
            f"{path}: holds no boxes of {scene} (but of {names}); add them under {scene}"
        )
    return found[scene]


def _turned_frames(
    frames: Frames, standing_poses_V44: NDArray[np.float64]
) -> tuple[Frames, list[str]]:
    """Return the frames with their images upright, and what of it has to be said."""
    turns = quarter_turns(standing_poses_V44)
    if not turns:
        return frames, []
    said = f"images: turned left by {90 * turns} degrees, so that up is their top"
    return TurnedFrames(frames, turns), [said]


def _turned_boxes(given: Mapping[str, Any], alignment: NDArray[np.float64]) -> BoxSet:
    rows = []
    for box, object_id, label in zip(given["boxes"], given["ids"], given["labels"], strict=True):
        centre = alignment[:3, :3] @ box[:3] + alignment[:3, 3]
        # The box along the new axes around the turned one: the same where axes change places.
        size = np.abs(alignment[:3, :3]) @ box[3:]
        rows.append((np.concatenate([centre, size]), object_id, label))
    return make_box_set(rows)
