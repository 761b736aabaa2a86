"""A scene as drawing needs it, read from the store once: frames, cameras, measured points."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from threedrs.errors import DataError
from threedrs.io.images import ImageError, open_image
from threedrs.scannet.geometry import nearest_indices, unproject
from threedrs.scenes.store import SceneStore


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneView:
    """The frames of one scene and their cameras."""

    scene: str  # ScanNet's scene name
    frame_ids: list[int]  # index in the stream of each of the V frames
    jpegs: list[bytes]  # the V colour images as captured
    rgb_VHW3: np.ndarray  # (V, 384, 384, 3) u8, these images as the student sees them
    depth_VHW: np.ndarray  # (V, 384, 384) u16, millimetres, 0: no measurement
    poses_V44: np.ndarray  # camera to world, metres
    intrinsic: np.ndarray  # (4, 4), of the original depth image, pixels
    depth_size: tuple[int, int]  # (width, height) of the original depth image, pixels

    @classmethod
    def of(cls, store: SceneStore) -> "SceneView":
        """Read what drawing needs from ``store``. Raises StoreError where it is damaged."""
        return cls(
            scene=store.scene,
            frame_ids=store.frame_ids,
            jpegs=store.jpegs(),
            rgb_VHW3=store.rgb(),
            depth_VHW=store.depth(),
            poses_V44=store.poses(),
            intrinsic=store.depth_intrinsic(),
            depth_size=store.depth_size,
        )

    def image(self, frame: int, width: int) -> Image.Image:
        """Return the captured image of ``frame``, ``width`` wide, in the depth image's aspect.

        Raises:
            DataError: the stored image cannot be decoded.
        """
        height = round(width * self.depth_size[1] / self.depth_size[0])
        try:
            with open_image(self.jpegs[frame]) as captured:
                return captured.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        except ImageError as error:
            raise DataError(f"{self.scene}: frame {self.frame_ids[frame]} {error}") from error

    def points(self, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """Return measured world points (N, 3), metres, and their colours (N, 3) u8.

        Every ``stride``-th row and column of each frame; pixels without depth are excluded.
        """
        side = self.depth_VHW.shape[1]
        columns, rows = (nearest_indices(size, side)[::stride] for size in self.depth_size)
        points, colours = [], []
        for depth_HW, rgb_HW3, pose in zip(
            self.depth_VHW, self.rgb_VHW3, self.poses_V44, strict=True
        ):
            shown_HW = depth_HW[::stride, ::stride]
            world = unproject(shown_HW, self.intrinsic, pose, columns_W=columns, rows_H=rows)
            points.append(world[shown_HW > 0])
            colours.append(rgb_HW3[::stride, ::stride][shown_HW > 0])
        return np.concatenate(points), np.concatenate(colours)
