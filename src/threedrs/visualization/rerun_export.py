"""A scene store as a recording for the Rerun viewer: points, boxes, cameras and their images.

The Rerun SDK is an optional dependency, imported here only.
"""

from pathlib import Path

import numpy as np
from PIL import ImageColor

from threedrs.errors import MachineError
from threedrs.io.files import atomic_file
from threedrs.scannet.boxes import BOX_SETS
from threedrs.scannet.geometry import IMAGE_SIZE
from threedrs.scenes.store import SceneStore
from threedrs.visualization.scene_plot import BOX_COLOURS
from threedrs.visualization.scene_view import SceneView

STRIDE = 4  # every fourth row and column of the depth image becomes points


def write_recording(store: SceneStore, out: Path) -> None:
    """Write the scene as an .rrd file, whole or not at all.

    Raises:
        MachineError: the Rerun SDK is not installed.
        StoreError: the store is damaged.
    """
    try:
        import rerun
    except ImportError as error:
        raise MachineError(
            f"{out}: needs the Rerun SDK, which is not installed; run "
            "pip install 'threedrs[rerun]' (in the repository: .venv/bin/pip install -e '.[rerun]')"
        ) from error
    view = SceneView.of(store)
    points_N3, colours_N3 = view.points(STRIDE)
    recording = rerun.RecordingStream("threedrs", recording_id=store.scene)
    with atomic_file(out) as temporary:
        recording.save(str(temporary))
        recording.log("world", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        recording.log(
            "world/points", rerun.Points3D(points_N3, colors=colours_N3, radii=0.01), static=True
        )
        for name in BOX_SETS:
            boxes = store.boxes(name)
            labels = [
                f"{i} {text}".strip() for i, text in zip(boxes.ids, boxes.labels, strict=True)
            ]
            if len(boxes):
                recording.log(
                    f"world/boxes/{name}",
                    rerun.Boxes3D(
                        centers=boxes.boxes[:, :3],
                        sizes=boxes.boxes[:, 3:],
                        labels=labels,
                        colors=[ImageColor.getrgb(BOX_COLOURS[name])] * len(boxes),
                    ),
                    static=True,
                )
        # The pinhole matrix of the square image: the depth camera's, resized.
        scale = np.diag([*(IMAGE_SIZE / np.array(store.depth_size)), 1.0])
        camera = scale @ store.depth_intrinsic()[:3, :3]
        for number, (frame, pose) in enumerate(zip(view.frame_ids, view.poses_V44, strict=True)):
            recording.set_time("frame", sequence=frame)
            recording.log(
                "world/camera",
                rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]),
                rerun.Pinhole(
                    image_from_camera=camera,
                    resolution=[IMAGE_SIZE, IMAGE_SIZE],
                    camera_xyz=rerun.ViewCoordinates.RDF,
                ),
            )
            recording.log(
                "world/camera/image", rerun.Image(view.rgb_VHW3[number]).compress(jpeg_quality=85)
            )
        # Before the file gets its name: the SDK writes in a thread of its own.
        recording.flush()
        recording.disconnect()
