"""Geometry of a scan: the world frame, pixels to world coordinates, patches, and box masks.

World frame: axis-aligned, metres, z up. A scan's ``<scene>.txt`` holds the rigid transform into it.

A coordinate map is the depth image resized to the encoder's square by nearest neighbour and
unprojected with the *depth* intrinsic, so depth, pose, intrinsic and original size give it exactly.
A map costs about 10 ms and 3.5 MB.

A patch sees a box if enough of its pixels' world coordinates lie inside, both corners inclusive:
98 of 196 on the fine grid (27x27 patches of 14x14 pixels: the encoder's), 91 of 729 on the coarse
grid (14x14 patches of 27x27 pixels: the language model's visual tokens). Both grids cover the
top-left 378x378 pixels. Masks cost about 0.3 ms an object and frame.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import parse_numbers, read_text
from threedrs.scannet.camera import is_rigid
from threedrs.scannet.layout import ScanFiles

IMAGE_SIZE = 384
"""Rows and columns of the encoder's square input image (H, W)."""
GRID = 14
"""Rows and columns of the coarse grid (G): the visual tokens of a frame."""
PATCH = 27
"""Rows and columns of pixels of a coarse patch."""
SIDE = GRID * PATCH
"""Rows and columns of pixels that the patches cover: 378 from the top left, not the last 6."""
FINE_GRID = 27
"""Rows and columns of the fine grid: the encoder's patches of 14 x 14 pixels."""
TILE = 18
"""Rows and columns of pixels of a tile of `patch_counts`, a divisor of `SIDE`."""
FINE_THRESHOLD = 98
COARSE_THRESHOLD = 91
MOST_ALIGNMENT_BYTES = 2**20  # ScanNet's <scene>.txt have 1 kB


def axis_alignment(scan: ScanFiles, listed: np.ndarray | None = None) -> np.ndarray:
    """Return the (4,4) f64 axis alignment of ``scan``.

    It is that of the scan's ``.txt``, else the one ``listed`` by EmbodiedScan. A scan with neither,
    nor a mesh or point cloud (a capture of the user's own, imported as a .sens), has its poses in
    the world frame already: identity.

    Raises:
        DataError: the file is malformed, or missing although nothing else gives the alignment.
    """
    if not scan.meta.exists() and listed is not None:
        return listed
    if not scan.meta.exists() and not scan.mesh.exists() and scan.point_cloud is None:
        return np.eye(4)
    found = read_axis_alignment(scan.meta)
    return np.eye(4) if found is None else found


def read_axis_alignment(path: Path) -> np.ndarray | None:
    """Return the (4,4) f64 rigid transform from the scan's frame to the axis-aligned world, metres.

    It is None in a file without the key ``axisAlignment``, as ScanNet's test scans have it.

    Raises:
        DataError: the file is missing, or the value is not a rigid 4x4 transform.
    """
    lines = read_text(path, most=MOST_ALIGNMENT_BYTES).splitlines()
    values = {key.strip(): value for key, _, value in (line.partition("=") for line in lines)}
    if "axisAlignment" not in values:
        return None
    numbers = parse_numbers(values["axisAlignment"], f"{path}: axisAlignment")
    if len(numbers) != 16:
        raise DataError(
            f"{path}: axisAlignment has {len(numbers)} numbers, expected 16 (4x4); restore the "
            "file from ScanNet"
        )
    alignment = np.array(numbers).reshape(4, 4)
    if not np.isfinite(alignment).all() or not is_rigid(alignment):
        raise DataError(
            f"{path}: axisAlignment is not a rigid transform (rotation and translation, last row "
            "0 0 0 1); restore the file from ScanNet"
        )
    return alignment


def nearest_indices(source_size: int, target_size: int = IMAGE_SIZE) -> np.ndarray:
    """Return the source index of each of ``target_size`` pixels, (target_size,) int64.

    floor(target * source_size / target_size), as OpenCV's INTER_NEAREST; in integers, so that no
    rounding enters.
    """
    return np.arange(target_size, dtype=np.int64) * source_size // target_size


def resize_depth(depth_HW: np.ndarray) -> np.ndarray:
    """Return a depth image resized to (384,384) by nearest neighbour, dtype kept."""
    height, width = depth_HW.shape
    return depth_HW[np.ix_(nearest_indices(height), nearest_indices(width))]


def unproject(
    depth_HW: np.ndarray,
    intrinsic: np.ndarray,
    pose: np.ndarray,
    *,
    columns_W: np.ndarray | None = None,
    rows_H: np.ndarray | None = None,
) -> np.ndarray:
    """Return the world coordinate of each pixel, (H,W,3) f64, metres.

    Pixel (u, v) of depth d mm is ((u - cx) z / fx, (v - cy) z / fy, z), z = d / 1000, in the
    camera's frame. Depth 0 (no measurement) lands on the camera centre.

    Args:
        depth_HW: (H,W) u16, mm.
        intrinsic: (3,3) or (4,4), of the image that ``columns_W`` and ``rows_H`` count in.
        pose: (4,4) camera to world.
        columns_W: (W,) pixel column u of each column of the depth array; default 0..W-1.
        rows_H: (H,) pixel row v of each row of the depth array; default 0..H-1.
    """
    height, width = depth_HW.shape
    u_W = np.arange(width) if columns_W is None else columns_W
    v_H = np.arange(height) if rows_H is None else rows_H
    z_HW = depth_HW.astype(np.float64) / 1000.0
    camera_HW3 = np.stack(
        [
            (u_W - intrinsic[0, 2])[None, :] * z_HW / intrinsic[0, 0],
            (v_H - intrinsic[1, 2])[:, None] * z_HW / intrinsic[1, 1],
            z_HW,
        ],
        axis=-1,
    )
    world_HW3: np.ndarray = camera_HW3 @ pose[:3, :3].T
    world_HW3 += pose[:3, 3]
    return world_HW3


def coordinate_map(
    depth_384: np.ndarray,
    pose: np.ndarray,
    depth_intrinsic: np.ndarray,
    depth_size: tuple[int, int],
) -> np.ndarray:
    """Return the world coordinate of each pixel of the encoder's square, (384,384,3) f64, metres.

    Args:
        depth_384: (384,384) u16, mm: the depth image resized by `resize_depth`.
        pose: (4,4) camera to world.
        depth_intrinsic: (4,4), of the original depth image.
        depth_size: (width, height) of the original depth image.
    """
    width, height = depth_size
    return unproject(
        depth_384,
        depth_intrinsic,
        pose,
        columns_W=nearest_indices(width),
        rows_H=nearest_indices(height),
    )


def patch_means(
    coordinates_HW3: np.ndarray, valid_HW: np.ndarray | None = None, grid: int = GRID
) -> np.ndarray:
    """Return the mean coordinate of each patch of the coarse grid, (14,14,3) f64, metres.

    Args:
        coordinates_HW3: (384,384,3) world coordinates.
        valid_HW: (384,384) bool, the pixels that enter the means; None: all. A patch without any
            such pixel gets the mean over all its pixels, which for depth 0 is the camera centre.
        grid: patches a side of the 378 pixels, a divisor of 378, where it is not 14.
    """
    square_HW3 = coordinates_HW3[:SIDE, :SIDE].astype(np.float64)
    all_GG3 = _patch_sums(square_HW3, grid) / (SIDE // grid) ** 2
    if valid_HW is None:
        return all_GG3
    valid_HW1 = valid_HW[:SIDE, :SIDE, None].astype(np.float64)
    count_GG1 = _patch_sums(valid_HW1, grid)
    valid_GG3 = _patch_sums(square_HW3 * valid_HW1, grid) / np.maximum(count_GG1, 1)
    return np.where(count_GG1 > 0, valid_GG3, all_GG3)


def _patch_sums(square_HWC: np.ndarray, grid: int) -> np.ndarray:
    """Return the sum over each patch of a square of 378 x 378 pixels, (grid,grid,C)."""
    # Rows first: numpy adds whole rows fast, and the few pixels of a patch slowly.
    rows_GRWC = square_HWC.reshape(grid, SIDE // grid, SIDE, -1)
    return rows_GRWC.sum(axis=1).reshape(grid, grid, SIDE // grid, -1).sum(axis=2)


def _tiles(square_HWC: np.ndarray) -> np.ndarray:
    """Return the pixels of a square of 378 x 378 by tile of ``TILE`` x ``TILE``, (T,P,C)."""
    side = SIDE // TILE
    tiles_hwRWC = square_HWC.reshape(side, TILE, side, TILE, -1).swapaxes(1, 2)
    return tiles_hwRWC.reshape(side**2, TILE**2, -1)


@cache
def _patch_of_pixel(grid: int) -> np.ndarray:
    """Return the row-major patch number of each pixel, by tile as in `_tiles`."""
    along = np.arange(SIDE) // (SIDE // grid)
    return _tiles(along[:, None] * grid + along[None, :])[..., 0]


def patch_counts(
    coordinates_HW3: np.ndarray,
    boxes_N6: np.ndarray,
    valid_HW: np.ndarray | None,
    grids: Sequence[int],
) -> list[np.ndarray]:
    """Return for each grid how many pixels of each patch of a frame lie in each box.

    Args:
        coordinates_HW3: (384,384,3) f32 world coordinates, metres.
        boxes_N6: (N,6) f32 centre + size, metres; both corners belong to the box.
        valid_HW: (384,384) bool: pixels that may lie inside a box; None: all.
        grids: patches a side, divisors of 378.

    Returns:
        int (N,grid,grid) for each of ``grids``.
    """
    square_HW3 = coordinates_HW3[:SIDE, :SIDE].astype(np.float32)
    if valid_HW is not None:
        square_HW3[~valid_HW[:SIDE, :SIDE]] = np.inf  # which lies in no box
    axes_3TP = np.ascontiguousarray(np.moveaxis(_tiles(square_HW3), -1, 0))
    half_N3 = boxes_N6[:, 3:].astype(np.float32) / np.float32(2)
    lower_N3 = boxes_N6[:, :3].astype(np.float32) - half_N3
    upper_N3 = boxes_N6[:, :3].astype(np.float32) + half_N3
    # A box lies in few tiles, and the extent of a tile's coordinates tells which ones may be those.
    near_N3T = (axes_3TP.min(axis=2) <= upper_N3[:, :, None]) & (
        axes_3TP.max(axis=2) >= lower_N3[:, :, None]
    )
    numbers_TP = np.arange(axes_3TP[0].size).reshape(axes_3TP[0].shape)
    counts = [np.zeros((len(boxes_N6), grid * grid), dtype=np.int64) for grid in grids]
    # Box by box, as all pixels of the tiles of a scan's 300 proposals would take a gigabyte.
    for row, tiles in enumerate(near_N3T.all(axis=1)):
        inside = numbers_TP[tiles].ravel()
        for values_TP, lower, upper in zip(axes_3TP, lower_N3[row], upper_N3[row], strict=True):
            values = values_TP.ravel()[inside]
            inside = inside[(values >= lower) & (values <= upper)]
        for grid, counts_NQ in zip(grids, counts, strict=True):
            patches = _patch_of_pixel(grid).ravel()[inside]
            counts_NQ[row] = np.bincount(patches, minlength=grid * grid)
    return [
        counts_NQ.reshape(-1, grid, grid) for grid, counts_NQ in zip(grids, counts, strict=True)
    ]


def frame_masks(
    coordinates_HW3: np.ndarray, boxes_N6: np.ndarray, valid_HW: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return one frame's fine (N,27,27) and coarse (N,14,14) bool masks; see `patch_counts`."""
    fine, coarse = patch_counts(coordinates_HW3, boxes_N6, valid_HW, (FINE_GRID, GRID))
    return fine >= FINE_THRESHOLD, coarse >= COARSE_THRESHOLD


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Return (...,R,R) bool masks as (...,ceil(R*R/8)) u8: row-major bits, highest first."""
    return np.packbits(masks.reshape(*masks.shape[:-2], masks.shape[-1] ** 2), axis=-1)


def unpack_masks(packed: np.ndarray, grid: int) -> np.ndarray:
    """Return the (...,grid,grid) bool masks that `pack_masks` packed."""
    bits = np.unpackbits(packed, axis=-1, count=grid * grid)
    return bits.reshape(*packed.shape[:-1], grid, grid).astype(bool)
