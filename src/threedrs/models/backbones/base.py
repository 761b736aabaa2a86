"""What differs between the backbone families, and nothing else: one object a family.

The `Student` holds the parameters and does everything that is the same for all: position embedding,
packing, heads, losses. A family builds the three pretrained parts and says how pictures become
tokens, where tokens stand for the rotary embedding, and what the checkpoints' tensors are called.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from threedrs.models.checkpoint.tensor_names import PublishedLayout
from threedrs.models.grid import VisualGrid


class Family(ABC):
    """A backbone family with the sizes of one model.

    Attributes:
        name: of the family, as in ``model.name`` of one of its checkpoints.
        text_config: of the language model; its vocabulary covers ``<ground>`` and ``<coord>``.
        vision_config: of the whole vision tower, as published.
        grid: the visual tokens of a frame.
        layout: names of the tensors in published checkpoints.
    """

    name: str
    layout: PublishedLayout

    def __init__(self, text_config: Any, vision_config: Any, grid: VisualGrid) -> None:
        self.text_config = text_config
        self.vision_config = vision_config
        self.grid = grid

    @property
    @abstractmethod
    def run_layers(self) -> int:
        """The layers of the vision tower that run."""

    @abstractmethod
    def language_model(self) -> PreTrainedModel:
        """Build the language model: ``model`` (decoder) and ``lm_head``."""

    @abstractmethod
    def vision_tower(self) -> PreTrainedModel:
        """Build the vision tower, without what is not run."""

    @abstractmethod
    def projector(self) -> nn.Module:
        """Build what takes the tower's features to the language model's width."""

    @abstractmethod
    def fine_tokens(self, tower: nn.Module, projector: nn.Module, rgb_VHWC: Tensor) -> Tensor:
        """Return the projected tokens (V,F,F,D) of frames (V,384,384,3) uint8."""

    @abstractmethod
    def coarse_tokens(self, fine_VFFD: Tensor) -> Tensor:
        """Return the tokens (V,G,G,D) that the language model reads."""

    def position_ids(self, index: Tensor, before: int, frames: int) -> Tensor:
        """Return what the rotary embedding counts for tokens at ``index`` of a sample's sequence.

        Args:
            index: (B,T) place in the sequence of one sample: shared prefix, then own tokens.
            before: the tokens in front of the visual ones.
            frames: V.
        """
        return index

    @abstractmethod
    def vision_sizes(self) -> tuple[int, int, int]:
        """Return the tower's patches a frame, width, and MLP width."""

    @abstractmethod
    def vision_operations(self) -> tuple[float, float, float]:
        """Return the forward operations of one frame: tower, projector's first and last layer."""


def restore_rotary(module: Any) -> None:
    """Compute a rotary embedding's frequencies again, in float32.

    A cast of the whole model to half precision rounds them, and their products with positions in
    the thousands are then off by many radians.
    """
    held: Tensor = module.inv_freq
    if held.is_meta:
        return
    compute = getattr(module, "compute_axial_rope_parameters", None)
    if compute is None:
        compute = module.compute_default_rope_parameters
    with torch.device("cpu"):
        frequency, _ = compute(module.config)
    for name in ("inv_freq", "original_inv_freq"):
        setattr(module, name, frequency.to(device=held.device, dtype=torch.float32))
