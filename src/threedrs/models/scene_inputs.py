"""A scene's tensors as the student reads them from a scene store, on its family's token grid.

Axis letters: V frames, S supervised frames, H W image rows and columns (384), F fine grid (LLaVA:
27), G coarse grid (LLaVA: 14), N objects, C teacher channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from threedrs.models.backbones.family import LLAVA_GRID, VisualGrid
from threedrs.scannet.geometry import GRID, SIDE, patch_counts, patch_means
from threedrs.scenes.store import SceneStore

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# A process that reads scenes keeps what is small of so many: ScanNet has 1,513.
MOST_SCENES = 1_536

T = TypeVar("T", bound="DataclassInstance")


def with_tensors(holder: T, change: Callable[[Tensor], Tensor]) -> T:
    """Return a dataclass with each of its tensors, and of those within it, changed."""
    changed: dict[str, Any] = {}
    for name, value in vars(holder).items():
        if isinstance(value, Tensor):
            changed[name] = change(value)
        elif is_dataclass(value) and not isinstance(value, type):
            changed[name] = with_tensors(value, change)
    return replace(holder, **changed)


@dataclass(frozen=True, kw_only=True)
class SceneInputs:
    """One scene's tensors."""

    scene: str  # its name
    rgb_VHWC: Tensor  # (V,384,384,3) uint8
    patch_xyz_VGG3: Tensor  # mean world coordinate of each patch, float32, metres
    boxes_N6: Tensor  # centre and size, float32, metres, world frame
    fine_NVFF: Tensor  # bool, the patches of the fine grid that see each object
    coarse_NVGG: Tensor  # bool, those of the coarse grid
    # Features (V,14,14,C), of the supervised frames alone where `supervised_S` names them; None at
    # inference and without supervision.
    teacher_VGGC: Tensor | None
    # Indices of the frames that have features, ascending int64; None: all.
    supervised_S: Tensor | None = None
    grid: VisualGrid = LLAVA_GRID  # that of the student who reads them

    @property
    def visual_tokens(self) -> int:
        """The number of the scene's visual tokens, newline tokens included."""
        return len(self.rgb_VHWC) * self.grid.frame_tokens

    def to(self, device: torch.device | str) -> "SceneInputs":
        """Return the scene with every tensor on ``device``."""
        return with_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "SceneInputs":
        """Return the scene in page-locked memory; a loader's thread calls this by torch's name."""
        return with_tensors(self, lambda tensor: tensor.pin_memory())

    def without_images(self) -> "SceneInputs":
        """Return the scene with no frame, for questions that are asked in words alone."""
        return replace(
            self,
            rgb_VHWC=self.rgb_VHWC[:0],
            patch_xyz_VGG3=self.patch_xyz_VGG3[:0],
            fine_NVFF=self.fine_NVFF[:, :0],
            coarse_NVGG=self.coarse_NVGG[:, :0],
        )


def grid_masks(
    coordinates_HW3: np.ndarray, boxes_N6: np.ndarray, valid_HW: np.ndarray | None, grid: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the patches (N,grid,grid) of a frame that see each box well enough, bool, twice.

    For feature A at least half of the pixels of a patch lie inside, for feature B at least an
    eighth. The arguments are those of `patch_counts`.
    """
    (counts,) = patch_counts(coordinates_HW3, boxes_N6, valid_HW, (grid,))
    pixels = (SIDE // grid) ** 2
    return 2 * counts >= pixels, counts >= pixels // 8


@lru_cache(maxsize=MOST_SCENES)
def _on_grid(
    path: Path, content_hash: str, box_set: str, grid: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return patch coordinates (V,G,G,3), and the masks for A and B (2,N,V,G,G) as packed bits.

    Another ``content_hash`` is another store at the same path, which is counted again.
    """
    # A loader reads a scene for each of its packs, and with 8 frames the pixels take nine tenths of
    # that. The results are small, at most 150 KB with 32 frames, 14 patches a side and 40 boxes: so
    # a loader keeps all scenes of a run, whose packs come in random order.
    store = SceneStore.open(path)
    boxes_N6 = np.asarray(store.boxes(box_set).boxes)
    coordinates, valid = store.coordinates(), None
    if store.attributes["invalid_depth"] == "ignore":
        valid = store.depth() > 0
    means, masks_a, masks_b = [], [], []
    for row, world_HW3 in enumerate(coordinates):
        valid_HW = None if valid is None else valid[row]
        means.append(patch_means(world_HW3, valid_HW, grid))
        mask_a, mask_b = grid_masks(world_HW3, boxes_N6, valid_HW, grid)
        masks_a.append(mask_a)
        masks_b.append(mask_b)
    patch_xyz = store.patch_xyz() if grid == GRID else np.stack(means).astype(np.float32)
    masks = np.stack([np.stack(masks_a, axis=1), np.stack(masks_b, axis=1)])
    return patch_xyz, np.packbits(masks)


def read_scene(
    store: SceneStore,
    box_set: str,
    *,
    grid: VisualGrid = LLAVA_GRID,
    teacher_VGGC: Tensor | None = None,
    supervised_S: Tensor | None = None,
) -> SceneInputs:
    """Return a scene with the boxes of ``box_set``, on ``grid``.

    Raises:
        StoreError: the store is damaged.
    """
    boxes_N6 = np.asarray(store.boxes(box_set).boxes)
    # The store holds the masks of LLaVA's two grids. Any other grid has one set of patches for both
    # features, which is counted from the pixels by the same rules.
    if grid == LLAVA_GRID:
        patch_xyz, (fine, coarse) = store.patch_xyz(), store.masks(box_set)
    else:
        patch_xyz, bits = _on_grid(store.path, store.content_hash(), box_set, grid.coarse)
        patch_xyz = patch_xyz.copy()  # what is kept must not change with a pack's tensors
        shape = (2, len(boxes_N6), *patch_xyz.shape[:3])
        fine, coarse = np.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(bool)
    return SceneInputs(
        scene=store.scene,
        rgb_VHWC=torch.from_numpy(np.asarray(store.rgb())),
        patch_xyz_VGG3=torch.from_numpy(np.asarray(patch_xyz)),
        boxes_N6=torch.tensor(boxes_N6),  # a copy: the store keeps its own
        fine_NVFF=torch.from_numpy(fine),
        coarse_NVGG=torch.from_numpy(coarse),
        teacher_VGGC=teacher_VGGC,
        supervised_S=supervised_S,
        grid=grid,
    )
