"""Pixels with depth to world coordinates, and their averages over patches.

World frame: axis-aligned, metres, z up. A coordinate map is the depth image resized to the
encoder's square by nearest neighbour and unprojected with the *depth* intrinsic, so depth, pose,
intrinsic and original size give it exactly. A map costs about 10 ms and 3.5 MB.
"""

import numpy as np

from threedrs.errors import ConfigError

IMAGE_SIZE = 384
"""Rows and columns of the encoder's square input image (H, W)."""
GRID = 14
"""Rows and columns of the coarse grid (G): the visual tokens of a frame."""
PATCH = 27
"""Rows and columns of pixels of a coarse patch; 14 x 27 = 378, the last 6 are in no patch."""
INVALID_DEPTH_CHOICES = ("reference", "ignore")


def check_invalid_depth(policy: str) -> None:
    """Raise ConfigError unless ``policy`` is one of `INVALID_DEPTH_CHOICES`."""
    if policy not in INVALID_DEPTH_CHOICES:
        raise ConfigError(
            f"geometry.invalid_depth: {policy!r} is not known; choose one of "
            f"{', '.join(INVALID_DEPTH_CHOICES)}"
        )


def nearest_indices(source_size: int, target_size: int = IMAGE_SIZE) -> np.ndarray:
    """Return the source index of each of ``target_size`` pixels, (target_size,) int64.

    floor(target * source_size / target_size), as OpenCV's INTER_NEAREST; in whole numbers, so that
    no rounding enters.
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
    return camera_HW3 @ pose[:3, :3].T + pose[:3, 3]


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
    side = GRID * PATCH
    patch = side // grid
    patches_GGPP3 = (
        coordinates_HW3[:side, :side].reshape(grid, patch, grid, patch, 3).transpose(0, 2, 1, 3, 4)
    )
    all_GG3 = patches_GGPP3.mean(axis=(2, 3))
    if valid_HW is None:
        return all_GG3
    valid_GGPP = valid_HW[:side, :side].reshape(grid, patch, grid, patch).transpose(0, 2, 1, 3)
    count_GG = valid_GGPP.sum(axis=(2, 3))
    total_GG3 = np.where(valid_GGPP[..., None], patches_GGPP3, 0.0).sum(axis=(2, 3))
    valid_GG3 = total_GG3 / np.maximum(count_GG, 1)[..., None]
    return np.where(count_GG[..., None] > 0, valid_GG3, all_GG3)
