"""Which patches of which frames see an object's box.

A patch sees a box if enough of its pixels' world coordinates lie inside, both corners inclusive:
98 of 196 on the fine grid (27x27 patches of 14x14 pixels: the encoder's), 91 of 729 on the coarse
grid (14x14 patches of 27x27 pixels: the language model's visual tokens). Both grids cover the
top-left 378x378 pixels.

Cost: one frame's coordinates (1.7 MB) at a time; about 0.3 ms an object and frame, as each axis
looks only at the pixels that the axes before it left.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

FINE_GRID = 27
FINE_THRESHOLD = 98
COARSE_GRID = 14
COARSE_THRESHOLD = 91
SIDE = 378  # pixels of a frame that the patches cover, from the top left


@cache
def _patch_of_pixel(grid: int) -> np.ndarray:
    """Return the (378*378,) row-major patch number of each pixel of the square."""
    along = np.arange(SIDE) // (SIDE // grid)
    return (along[:, None] * grid + along[None, :]).ravel()


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
    square_P3 = coordinates_HW3[:SIDE, :SIDE].astype(np.float32).reshape(-1, 3)
    pixels_P = np.arange(len(square_P3))
    if valid_HW is not None:
        pixels_P = np.flatnonzero(valid_HW[:SIDE, :SIDE])
    axes = [np.ascontiguousarray(square_P3[pixels_P, axis]) for axis in range(3)]
    half_N3 = boxes_N6[:, 3:].astype(np.float32) / np.float32(2)
    lower_N3 = boxes_N6[:, :3].astype(np.float32) - half_N3
    upper_N3 = boxes_N6[:, :3].astype(np.float32) + half_N3
    counts = [np.zeros((len(boxes_N6), grid * grid), dtype=np.int64) for grid in grids]
    for row, (lower, upper) in enumerate(zip(lower_N3, upper_N3, strict=True)):
        inside = np.flatnonzero((axes[0] >= lower[0]) & (axes[0] <= upper[0]))
        for axis in (1, 2):
            values = axes[axis][inside]
            inside = inside[(values >= lower[axis]) & (values <= upper[axis])]
        for grid, counts_NQ in zip(grids, counts, strict=True):
            patches = _patch_of_pixel(grid)[pixels_P[inside]]
            counts_NQ[row] = np.bincount(patches, minlength=grid * grid)
    return [
        counts_NQ.reshape(-1, grid, grid) for grid, counts_NQ in zip(grids, counts, strict=True)
    ]


def frame_masks(
    coordinates_HW3: np.ndarray, boxes_N6: np.ndarray, valid_HW: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return one frame's fine (N,27,27) and coarse (N,14,14) bool masks; see `patch_counts`."""
    fine, coarse = patch_counts(coordinates_HW3, boxes_N6, valid_HW, (FINE_GRID, COARSE_GRID))
    return fine >= FINE_THRESHOLD, coarse >= COARSE_THRESHOLD


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Return (...,R,R) bool masks as (...,ceil(R*R/8)) u8: row-major bits, highest first."""
    return np.packbits(masks.reshape(*masks.shape[:-2], masks.shape[-1] ** 2), axis=-1)


def unpack_masks(packed: np.ndarray, grid: int) -> np.ndarray:
    """Return the (...,grid,grid) bool masks that `pack_masks` packed."""
    bits = np.unpackbits(packed, axis=-1, count=grid * grid)
    return bits.reshape(*packed.shape[:-1], grid, grid).astype(bool)
