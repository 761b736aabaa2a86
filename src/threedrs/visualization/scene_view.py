"""A scene as the report looks at it: everything that drawing needs, read from the store once."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from threedrs.errors import DataError
from threedrs.scenes.store import SceneStore


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneView:
    """The frames of one scene and their cameras.

    Attributes:
        scene: ScanNet's scene name.
        frame_ids: index in the stream of each of the V frames.
        jpegs: the V colour images as captured.
        depth_VHW: (V, 384, 384) u16, millimetres, 0: no measurement.
        poses_V44: camera to world, metres.
        intrinsic: (4, 4), of the original depth image, pixels.
        depth_size: (width, height) of the original depth image, pixels.
    """

    scene: str
    frame_ids: list[int]
    jpegs: list[bytes]
    depth_VHW: np.ndarray
    poses_V44: np.ndarray
    intrinsic: np.ndarray
    depth_size: tuple[int, int]

    @classmethod
    def of(cls, store: SceneStore) -> "SceneView":
        """Read what drawing needs from ``store``. Raises StoreError where it is damaged."""
        return cls(
            scene=store.scene,
            frame_ids=store.frame_ids,
            jpegs=store.jpegs(),
            depth_VHW=store.depth(),
            poses_V44=store.poses(),
            intrinsic=store.depth_intrinsic(),
            depth_size=store.depth_size,
        )

    def picture(self, frame: int, width: int) -> Image.Image:
        """Return the captured image of ``frame``, ``width`` wide, in the depth image's aspect.

        Raises:
            DataError: the stored image cannot be decoded.
        """
        height = round(width * self.depth_size[1] / self.depth_size[0])
        try:
            # Not whatever Pillow knows: some formats start programs (EPS: Ghostscript).
            stream = io.BytesIO(self.jpegs[frame])
            with Image.open(stream, formats=("JPEG", "PNG")) as captured:
                return captured.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{self.scene}: frame {self.frame_ids[frame]} cannot be decoded ({error})"
            ) from error
