"""What the student takes in: a scene's tensors, tokenised samples, and packs of samples.

Axis letters: V frames, H W image rows and columns (384), F fine grid (LLaVA: 27), G coarse grid
(LLaVA: 14), N objects, T a sample's own tokens, C teacher channels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threedrs.errors import DataError
from threedrs.models.grid import LLAVA_GRID, VisualGrid

IGNORE = -100  # label of a token without loss, the convention of torch's cross entropy
TEACHER = 14  # the teacher's grid, as the feature store holds it


@dataclass(frozen=True, kw_only=True)
class SceneInputs:
    """One scene's tensors.

    ``rgb`` (V,384,384,3) uint8; ``patch_xyz`` (V,G,G,3) and ``boxes`` (N,6) float32, metres, world
    frame, boxes as centre and size; object masks ``fine`` (N,V,F,F) and ``coarse`` (N,V,G,G) bool;
    ``teacher`` features (V,14,14,C), None at inference and without supervision. ``grid`` is that of
    the student who reads them.

    Raises:
        DataError: the shapes contradict each other.
    """

    scene: str
    rgb_VHWC: Tensor
    patch_xyz_VGG3: Tensor
    boxes_N6: Tensor
    fine_NVFF: Tensor
    coarse_NVGG: Tensor
    teacher_VGGC: Tensor | None
    grid: VisualGrid = LLAVA_GRID

    def __post_init__(self) -> None:
        frames, objects = len(self.rgb_VHWC), len(self.boxes_N6)
        fine, coarse = self.grid.fine, self.grid.coarse
        expected = {
            "rgb_VHWC": (frames, 384, 384, 3),
            "patch_xyz_VGG3": (frames, coarse, coarse, 3),
            "boxes_N6": (objects, 6),
            "fine_NVFF": (objects, frames, fine, fine),
            "coarse_NVGG": (objects, frames, coarse, coarse),
        }
        if self.teacher_VGGC is not None:
            expected["teacher_VGGC"] = (frames, TEACHER, TEACHER, self.teacher_VGGC.shape[-1])
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise DataError(
                    f"{self.scene}: {name} has shape {found}, expected {shape}; "
                    "the scene store and the feature store of this scene do not fit together"
                )

    @property
    def visual_tokens(self) -> int:
        """The number of the scene's visual tokens, newline tokens included."""
        return len(self.rgb_VHWC) * self.grid.frame_tokens

    def to(self, device: torch.device | str) -> "SceneInputs":
        """Return the scene with every tensor on ``device``."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "SceneInputs":
        """Return the scene in page-locked memory, from which a GPU takes it while the host goes on.

        A loader's thread calls this; the name is the one that torch looks for.
        """
        return self._changed(lambda tensor: tensor.pin_memory())

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "SceneInputs":
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The tokens that all samples of a scene share, around the visual tokens, with their labels."""

    before_ids: tuple[int, ...]
    before_labels: tuple[int, ...]
    after_ids: tuple[int, ...]
    after_labels: tuple[int, ...]

    def length(self, visual_tokens: int) -> int:
        """The number of shared tokens, the visual ones included."""
        return len(self.before_ids) + visual_tokens + len(self.after_ids)


@dataclass(frozen=True, kw_only=True)
class Query:
    """An evaluation question: its own tokens up to and including the assistant's header.

    Arrays on the host: ``input_ids`` (T,) int64; ``coordinate`` (3,) float32, metres, world frame:
    the point that the ``<coord>`` token at ``coordinate_index`` stands for; both None without such
    a token.
    """

    id: str
    input_ids: np.ndarray
    prefix: Prefix
    coordinate: np.ndarray | None
    coordinate_index: int | None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A training sample: its own tokens after the shared prefix, up to the end of the answer.

    Arrays on the host, which a loader hands over in one piece; torch would open a file for each
    tensor. ``input_ids`` and ``labels`` (T,) int64, labels not shifted, -100 without loss.
    ``target_rows``: None for a text sample; for a grounding sample the rows of the scene's boxes
    that the text means, [] for the zero target, and ``ground_index`` is where ``<ground>`` stands
    in ``input_ids``. ``coordinate`` and ``coordinate_index`` as in `Query`.
    """

    id: str
    input_ids: np.ndarray
    labels: np.ndarray
    prefix: Prefix
    target_rows: list[int] | None
    ground_index: int | None
    coordinate: np.ndarray | None
    coordinate_index: int | None


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Samples of one scene that share its visual tokens; at least one, all with the same prefix."""

    scene: SceneInputs
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        assert self.samples, "a pack holds at least one sample"
        assert len({sample.prefix for sample in self.samples}) == 1, "prefixes differ in a pack"

    @property
    def tokens(self) -> int:
        """The length of the packed sequence."""
        own = sum(len(sample.input_ids) for sample in self.samples)
        return self.samples[0].prefix.length(self.scene.visual_tokens) + own

    def to(self, device: torch.device | str) -> "Pack":
        """Return the pack with its scene on ``device``; the samples are small and stay."""
        return replace(self, scene=self.scene.to(device))

    def pin_memory(self) -> "Pack":
        """Return the pack with its scene in page-locked memory."""
        return replace(self, scene=self.scene.pin_memory())
