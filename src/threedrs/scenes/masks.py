"""Which patches of which frames see an object's box.

A patch sees a box if enough of its pixels' world coordinates lie inside, both corners inclusive:
98 of 196 on the fine grid (27x27 patches of 14x14 pixels: the encoder's), 91 of 729 on the coarse
grid (14x14 patches of 27x27 pixels: the language model's visual tokens). Both grids cover the
top-left 378x378 pixels.

Cost: one frame's coordinates (1.7 MB) at a time; about 0.3 ms an object and frame, as each axis
looks only at the pixels that the axes before it left.
"""

import numpy as np

FINE_GRID = 27
FINE_PATCH = 14
FINE_THRESHOLD = 98
COARSE_GRID = 14
COARSE_PATCH = 27
COARSE_THRESHOLD = 91
_SIDE = FINE_GRID * FINE_PATCH


def _patch_of_pixel(grid: int, patch: int) -> np.ndarray:
    """Return the (378*378,) row-major patch number of each pixel of the square."""
    along = np.arange(_SIDE) // patch
    return (along[:, None] * grid + along[None, :]).ravel()


_FINE_PATCH_OF_PIXEL = _patch_of_pixel(FINE_GRID, FINE_PATCH)
_COARSE_PATCH_OF_PIXEL = _patch_of_pixel(COARSE_GRID, COARSE_PATCH)


def frame_masks(
    coordinates_HW3: np.ndarray, boxes_N6: np.ndarray, valid_HW: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return one frame's fine (N,27,27) and coarse (N,14,14) bool masks.

    Args:
        coordinates_HW3: (384,384,3) f32 world coordinates, metres.
        boxes_N6: (N,6) f32 centre + size, metres.
        valid_HW: (384,384) bool: pixels that may lie inside a box; None: all.
    """
    square_P3 = coordinates_HW3[:_SIDE, :_SIDE].astype(np.float32).reshape(-1, 3)
    pixels_P = np.arange(len(square_P3))
    if valid_HW is not None:
        pixels_P = np.flatnonzero(valid_HW[:_SIDE, :_SIDE])
    axes = [np.ascontiguousarray(square_P3[pixels_P, axis]) for axis in range(3)]
    half_N3 = boxes_N6[:, 3:].astype(np.float32) / np.float32(2)
    lower_N3 = boxes_N6[:, :3].astype(np.float32) - half_N3
    upper_N3 = boxes_N6[:, :3].astype(np.float32) + half_N3
    fine_NFF = np.zeros((len(boxes_N6), FINE_GRID, FINE_GRID), dtype=bool)
    coarse_NGG = np.zeros((len(boxes_N6), COARSE_GRID, COARSE_GRID), dtype=bool)
    for row, (lower, upper) in enumerate(zip(lower_N3, upper_N3, strict=True)):
        inside = np.flatnonzero((axes[0] >= lower[0]) & (axes[0] <= upper[0]))
        for axis in (1, 2):
            values = axes[axis][inside]
            inside = inside[(values >= lower[axis]) & (values <= upper[axis])]
        if len(inside) < min(FINE_THRESHOLD, COARSE_THRESHOLD):
            continue
        seen = pixels_P[inside]
        fine = np.bincount(_FINE_PATCH_OF_PIXEL[seen], minlength=FINE_GRID**2)
        coarse = np.bincount(_COARSE_PATCH_OF_PIXEL[seen], minlength=COARSE_GRID**2)
        fine_NFF[row] = (fine >= FINE_THRESHOLD).reshape(FINE_GRID, FINE_GRID)
        coarse_NGG[row] = (coarse >= COARSE_THRESHOLD).reshape(COARSE_GRID, COARSE_GRID)
    return fine_NFF, coarse_NGG


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Return (...,R,R) bool masks as (...,ceil(R*R/8)) u8: row-major bits, highest first."""
    return np.packbits(masks.reshape(*masks.shape[:-2], masks.shape[-1] ** 2), axis=-1)


def unpack_masks(packed: np.ndarray, grid: int) -> np.ndarray:
    """Return the (...,grid,grid) bool masks that `pack_masks` packed."""
    bits = np.unpackbits(packed, axis=-1, count=grid * grid)
    return bits.reshape(*packed.shape[:-1], grid, grid).astype(bool)
