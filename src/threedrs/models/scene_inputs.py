"""A scene store as the student reads it, on the token grid of the student's family.

The LLaVA families' two grids are in the store. Another grid (`qwen2-vl`) has one set of patches for
both features of an object; they follow the same rules: patches of the top-left 378x378 pixels,
their mean world coordinate, half of the pixels inside the box for feature A and an eighth for
feature B. They are counted from the pixels when a scene is read.
"""

import numpy as np
import torch
from torch import Tensor

from threedrs.models.grid import LLAVA_GRID, VisualGrid
from threedrs.models.samples import SceneInputs
from threedrs.scannet.geometry import GRID, patch_means
from threedrs.scenes.masks import SIDE, patch_counts
from threedrs.scenes.store import SceneStore


def grid_masks(
    coordinates_HW3: np.ndarray, boxes_N6: np.ndarray, valid_HW: np.ndarray | None, grid: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the patches (N,grid,grid) of a frame that see each box well enough, bool, twice.

    For feature A at least half, for feature B at least an eighth of a patch's pixels lie inside;
    arguments as of `patch_counts`.
    """
    (counts,) = patch_counts(coordinates_HW3, boxes_N6, valid_HW, (grid,))
    pixels = (SIDE // grid) ** 2
    return 2 * counts >= pixels, counts >= pixels // 8


def _on_grid(
    store: SceneStore, boxes_N6: np.ndarray, grid: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return patch coordinates (V,G,G,3), masks for A and masks for B, both (N,V,G,G)."""
    ignore = store.attributes["invalid_depth"] == "ignore"
    means, masks_a, masks_b = [], [], []
    for world_HW3, depth_HW in zip(store.coordinates(), store.depth(), strict=True):
        valid_HW = depth_HW > 0 if ignore else None
        means.append(patch_means(world_HW3.astype(np.float64), valid_HW, grid))
        mask_a, mask_b = grid_masks(world_HW3, boxes_N6, valid_HW, grid)
        masks_a.append(mask_a)
        masks_b.append(mask_b)
    patch_xyz = store.patch_xyz() if grid == GRID else np.stack(means).astype(np.float32)
    return patch_xyz, np.stack(masks_a, axis=1), np.stack(masks_b, axis=1)


def read_scene(
    store: SceneStore,
    box_set: str,
    *,
    grid: VisualGrid = LLAVA_GRID,
    teacher_VGGC: Tensor | None = None,
) -> SceneInputs:
    """Return a scene with the boxes of ``box_set``, on ``grid``.

    Raises:
        StoreError: the store is damaged.
        DataError: ``teacher_VGGC`` is of other frames.
    """
    boxes_N6 = np.asarray(store.boxes(box_set).boxes)
    if grid == LLAVA_GRID:
        patch_xyz, (fine, coarse) = store.patch_xyz(), store.masks(box_set)
    else:
        patch_xyz, fine, coarse = _on_grid(store, boxes_N6, grid.coarse)
    return SceneInputs(
        scene=store.scene,
        rgb_VHWC=torch.from_numpy(np.asarray(store.rgb())),
        patch_xyz_VGG3=torch.from_numpy(np.asarray(patch_xyz)),
        boxes_N6=torch.from_numpy(boxes_N6),
        fine_NVFF=torch.from_numpy(fine),
        coarse_NVGG=torch.from_numpy(coarse),
        teacher_VGGC=teacher_VGGC,
        grid=grid,
    )
