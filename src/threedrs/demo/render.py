"""The RGB-D frames that a camera takes of a room.

One ray cast gives colour, depth and the sensor's failures.

Colour is the hit triangle's colour times the light interpolated from its vertices, with floor
boards or tiles drawn from the hit point, resized to the colour camera's own size. Depth is that of
a structured-light sensor: disparity in steps, so that errors grow with distance (under 2 cm at
6 m), and no measurement at grazing angles, beyond its range, at the border and in random blobs.
About 50 ms a frame on one core.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from threedrs.demo.room_mesh import SceneMesh

DEPTH_SIZE = (640, 480)
COLOR_SIZE = (648, 484)
DEPTH_INTRINSIC = np.array([[525.0, 0, 319.5, 0], [0, 525.0, 239.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
_RATIO = np.array(COLOR_SIZE) / np.array(DEPTH_SIZE)
COLOR_INTRINSIC = np.array(
    [
        [525.0 * _RATIO[0], 0, 320.0 * _RATIO[0] - 0.5, 0],
        [0, 525.0 * _RATIO[1], 240.0 * _RATIO[1] - 0.5, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
)
JPEG_QUALITY = 88
NEAR, FAR = 0.35, 6.0  # metres that the sensor measures
DISPARITY_STEP = 1 / 1800  # of 1/metre: neighbouring steps are 9 mm apart at 4 m
GRAZING_COSINE = 0.13
BORDER = 6  # pixels
CEILING_RGB = (222, 221, 217)


@dataclass(frozen=True)
class _Hits:
    """What the rays of all pixels (480,640) met.

    ``triangle`` i32, -1 nothing; ``inverse_depth`` f32 1/metre, 0 for nothing; ``light`` f32.
    """

    triangle: np.ndarray
    inverse_depth: np.ndarray
    light: np.ndarray


class FrameRenderer:
    """Renders frames of one room; frame ``i`` depends on the seed and ``i`` alone."""

    def __init__(self, mesh: SceneMesh, floor_style: str, seed: np.random.SeedSequence) -> None:
        self.mesh = mesh
        self.floor_style = floor_style
        corners = mesh.vertices[mesh.triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self.offsets = np.einsum("mc,mc->m", self.normals, corners[:, 0])
        self.corner_light = mesh.vertex_light[mesh.triangles]
        width, height = DEPTH_SIZE
        focal = DEPTH_INTRINSIC[0, 0]
        self.x = ((np.arange(width) - DEPTH_INTRINSIC[0, 2]) / focal).astype(np.float32)
        self.y = ((np.arange(height) - DEPTH_INTRINSIC[1, 2]) / focal).astype(np.float32)
        self.ray_length = np.sqrt(1 + self.x[None, :] ** 2 + self.y[:, None] ** 2)
        noise_seed, self.frame_seed = seed.spawn(2)
        rng = np.random.default_rng(noise_seed)
        fields = rng.standard_normal((2, height, width)).astype(np.float32)
        smooth = gaussian_filter(fields[0], 3.0, mode="wrap")
        blobs = gaussian_filter(fields[1], 7.0, mode="wrap")
        # Fields of colour grain, disparity and holes, shifted at random for each frame.
        self.noise = (
            rng.normal(0, 2.0, (height, width)).astype(np.float32),
            (smooth / smooth.std() * 0.3).clip(-0.45, 0.45).astype(np.float32),
            blobs > np.quantile(blobs, 0.993),
        )
        self.tones = rng.uniform(0.86, 1.08, 256).astype(np.float32)

    def render(self, pose: np.ndarray, index: int) -> tuple[bytes, np.ndarray]:
        """Return (JPEG bytes of 648x484, depth (480,640) u16 in millimetres) seen from ``pose``.

        ``pose`` (4,4): camera to axis-aligned world.
        """
        hits = self._cast_all(pose.astype(np.float32))
        rng = np.random.default_rng([*self.frame_seed.generate_state(2).tolist(), index])
        grain, disparity, holes = (
            np.roll(field, tuple(rng.integers(0, field.shape).tolist()), (0, 1))
            for field in self.noise
        )
        image = Image.fromarray(self._color(pose.astype(np.float32), hits, grain))
        resized = image.resize(COLOR_SIZE, Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        resized.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue(), self._depth(pose, hits, disparity, holes)

    def _directions(self, pose: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """World directions (3,R) f32 of pixels' rays, 1 along the camera's z: t is the depth.

        ``rows`` and ``columns`` are broadcast against each other, and R counts the pixels in order.
        """
        x, y = self.x[columns], self.y[rows]
        # Axis by axis: numpy takes three times as long over rows of three numbers.
        return np.stack([(x * axis[0] + y * axis[1] + axis[2]).ravel() for axis in pose[:3]])

    def _cast(self, pose: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> _Hits:
        met = self.mesh.cast(pose[:3, 3], self._directions(pose, rows, columns).T)
        triangle = met["primitive_ids"]
        u, v = met["primitive_uvs"].T
        corner = np.take(self.corner_light, triangle, axis=0, mode="wrap")
        light = corner[:, 0] * (1 - u - v) + corner[:, 1] * u + corner[:, 2] * v
        return _Hits(triangle, 1 / met["t_hit"], light)

    def _cast_all(self, pose: np.ndarray) -> _Hits:
        """Cast every second pixel, and between them only where the four around differ in plane.

        On a plane 1/depth is linear in the pixel, so what is interpolated there is exact.
        """
        width, height = DEPTH_SIZE
        coarse = self._cast(pose, *np.ogrid[0:height:2, 0:width:2])
        shape = (height // 2, width // 2)
        plane = np.take(self.mesh.triangle_plane, coarse.triangle, mode="wrap")
        plane = np.where(coarse.triangle < 0, -1, plane).reshape(shape)
        flat = np.zeros(shape, bool)
        first = plane[:-1, :-1]
        around = (plane[1:, :-1], plane[:-1, 1:], plane[1:, 1:])
        flat[:-1, :-1] = np.logical_and.reduce([first == other for other in around])
        hits = _Hits(
            coarse.triangle.reshape(shape).repeat(2, 0).repeat(2, 1),
            _double(coarse.inverse_depth.reshape(shape)),
            _double(coarse.light.reshape(shape)),
        )
        uneven = (~flat).repeat(2, 0).repeat(2, 1)
        uneven[::2, ::2] = False
        rest = np.flatnonzero(uneven)
        fine = self._cast(pose, *np.divmod(rest, width))
        np.put(hits.triangle, rest, fine.triangle)
        np.put(hits.inverse_depth, rest, fine.inverse_depth)
        np.put(hits.light, rest, fine.light)
        return hits

    def _floor_tone(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Brightness (R,) of the floor's pattern at points (R,) and (R,), metres."""
        if self.floor_style == "tiles":
            column, row = np.floor(x / 0.4).astype(np.int32), np.floor(y / 0.4).astype(np.int32)
            joint = (x / 0.4 - column < 0.03) | (y / 0.4 - row < 0.03)
            tone = np.where((column + row) % 2 == 0, np.float32(1.06), np.float32(0.9))
        else:
            row = np.floor(y / 0.16).astype(np.int32)
            along = x / 1.3 + (row % 5) * 0.37
            column = np.floor(along).astype(np.int32)
            joint = (y / 0.16 - row < 0.05) | (along - column < 0.006)
            tone = self.tones[(row * 37 + column * 101) % 256]
        return np.where(joint, np.float32(0.72), tone)

    def _color(self, pose: np.ndarray, hits: _Hits, grain: np.ndarray) -> np.ndarray:
        """Return the image (480,640,3) u8."""
        light, nothing = hits.light, hits.triangle < 0
        floor = np.take(self.mesh.triangle_floor, hits.triangle, mode="wrap") & ~nothing
        on_floor = np.flatnonzero(floor)
        rows, columns = np.divmod(on_floor, DEPTH_SIZE[0])
        reach = self._directions(pose, rows, columns) / np.take(hits.inverse_depth, on_floor)
        x, y, _ = pose[:3, 3:] + reach
        np.put(light, on_floor, np.take(light, on_floor) * self._floor_tone(x, y))
        color = np.empty((*light.shape, 3), np.uint8)
        # Channel by channel, for the reason of `_directions`.
        for channel, ceiling in enumerate(CEILING_RGB):
            plane = np.take(self.mesh.triangle_rgb[:, channel], hits.triangle, mode="wrap")
            plane *= light
            plane[nothing] = ceiling
            plane += grain
            color[..., channel] = np.clip(plane, 0, 255, out=plane)
        return color

    def _depth(
        self, pose: np.ndarray, hits: _Hits, disparity: np.ndarray, holes: np.ndarray
    ) -> np.ndarray:
        """Return what the sensor measures, (480,640) u16 millimetres."""
        height_over_plane = np.abs(self.offsets - self.normals @ pose[:3, 3]).astype(np.float32)
        inverse = hits.inverse_depth
        cosine = np.take(height_over_plane, hits.triangle, mode="wrap") * inverse / self.ray_length
        steps = np.rint(inverse * np.float32(1 / DISPARITY_STEP) + disparity)
        lost = (inverse > 1 / NEAR) | (inverse < 1 / FAR) | (cosine < GRAZING_COSINE) | holes
        lost[:BORDER] = lost[-BORDER:] = True
        lost[:, :BORDER] = lost[:, -BORDER:] = True
        millimetres = np.float32(1000 / DISPARITY_STEP) / np.maximum(steps, 1)
        return np.where(lost, 0, np.rint(millimetres)).astype(np.uint16)


def _double(coarse: np.ndarray) -> np.ndarray:
    """Twice the rows and columns, new ones halfway between their neighbours (the last repeated)."""
    height, width = coarse.shape
    fine = np.empty((2 * height, 2 * width), coarse.dtype)
    fine[::2, ::2] = coarse
    fine[::2, 1:-1:2] = (coarse[:, :-1] + coarse[:, 1:]) / 2
    fine[::2, -1] = coarse[:, -1]
    fine[1:-1:2] = (fine[:-2:2] + fine[2::2]) / 2
    fine[-1] = fine[-2]
    return fine
