"""The engine of a run on one rank: AdamW over flat parameters, and nothing that ranks need.

DeepSpeed's ZeRO-2 collects each gradient into buckets, and takes its norm by itself, also where
there is no other rank. For a small student that is a third of the operators of a step. Here the
trained parameters of a group lie end to end in one tensor and so do their gradients, which the
backward pass adds up in place. Norm, clipping and update are then some ten kernels a group.

The numbers are those of ZeRO-2: gradients in the precision of the parameters, float32 weights and
moments, and weights that are rounded from these after each step.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from threedrs.models.backbones.fused_layers import join_parameters
from threedrs.training.recorded_passes import RecordedPasses

ROUNDING = 1e-6  # keeps the clipped norm from passing the limit, as in DeepSpeed


class FlatGroups:
    """The trained parameters of each group, end to end.

    Checkpoints read and write them by the names that ZeRO-2 has for the same tensors.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Take over the parameters of ``groups``, which are made views of one tensor a group."""
        groups = list(groups)
        self.bit16_groups: list[list[nn.Parameter]] = [group["params"] for group in groups]
        self.bit16_groups_flat = [join_parameters(parameters) for parameters in self.bit16_groups]
        # What AdamW works on; with parameters in float32 the very same tensors.
        self.single_partition_of_fp32_groups = [
            nn.Parameter(flat.float()) for flat in self.bit16_groups_flat
        ]
        self.gradients = [torch.zeros_like(flat) for flat in self.bit16_groups_flat]
        self.parts: list[Tensor] = []  # the gradient of each parameter
        for parameters, gradient in zip(self.bit16_groups, self.gradients, strict=True):
            parts = gradient.split([parameter.numel() for parameter in parameters])
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.grad = part.view_as(parameter)
            self.parts += parts
        self.adamw_groups = [
            {**group, "params": [weights]}
            for group, weights in zip(groups, self.single_partition_of_fp32_groups, strict=True)
        ]
        self.optimizer: torch.optim.Optimizer  # AdamW of the groups, once it is built

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of AdamW, with their learning rates."""
        return self.optimizer.param_groups


@dataclass(eq=False)
class OneRankEngine:
    """Runs a module on one rank, by the methods of a DeepSpeed engine that a step calls."""

    module: nn.Module
    optimizer: FlatGroups
    lr_scheduler: Any
    gradient_clip: float
    passes: RecordedPasses | None  # in place of a call and `backward`, if passes are recorded

    def __post_init__(self) -> None:
        self._norm = 0.0
        self.module.train()

    def __call__(self, *arguments: Any) -> Any:
        """Run the module."""
        return self.module(*arguments)

    def zero_optimization_stage(self) -> int:
        """Return the stage of ZeRO whose names the optimizer has."""
        return 2

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_global_grad_norm(self) -> float:
        """Return the norm of the gradient of the last step, before it was clipped."""
        return self._norm

    def was_step_applied(self) -> bool:
        """Whether the last step changed the weights: its gradient was finite."""
        return math.isfinite(self._norm)

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        """Take note of nothing: only ranks that share gradients need to know the last backward."""

    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> None:
        """Add the gradient of ``loss`` to what earlier micro-steps left."""
        assert not scale_wrt_gas, "a step scales its losses itself"
        loss.backward()

    @torch.no_grad()
    def step(self) -> None:
        """Clip the gradient, update the weights, and go on to the next learning rate.

        A gradient that is not finite changes nothing but the gradient, which is zero again.
        """
        flat = self.optimizer
        # Each by itself, but in one call: a float32 sum over all elements would round too much.
        norms = torch._foreach_norm(flat.parts, 2, dtype=torch.float32)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        self._norm = float(norm)  # the only wait for the GPU
        if self.was_step_applied():
            self._update(min(1.0, self.gradient_clip / (self._norm + ROUNDING)))
            self.lr_scheduler.step()
        torch._foreach_zero_(flat.gradients)

    def _update(self, scale: float) -> None:
        flat = self.optimizer
        for weights, gradient, whole in zip(
            flat.single_partition_of_fp32_groups,
            flat.gradients,
            flat.bit16_groups_flat,
            strict=True,
        ):
            # One group at a time: a gradient in float32 is as large as the group's weights.
            weights.grad = gradient.to(torch.float32, copy=True).mul_(scale)
            flat.optimizer.step()
            weights.grad = None
            if whole.dtype != torch.float32:
                whole.copy_(weights)
