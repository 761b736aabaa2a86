"""The objective of a pack: its loss, and the sums over its samples that a step reports."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from threedrs.config.schema import SupervisionSettings
from threedrs.models.packing import Pack, PackLosses, on_device
from threedrs.models.student import Student
from threedrs.training.flops import OperationCount

# Sums over samples that a step reports, in this order, beside the flags of `StepOutcome`.
SUMS = (
    "loss",
    "samples",
    "text",
    "texts",
    "grounding",
    "groundings",
    "supervision",
    "tokens",
    "flops",
)


class PackObjective(nn.Module):
    """The loss of a pack: the sum over its samples of text or grounding loss plus the 3D loss."""

    def __init__(
        self, student: Student, supervision: SupervisionSettings, operations: OperationCount
    ) -> None:
        super().__init__()
        self.student = student
        self.supervision = supervision
        self.operations = operations

    def forward(self, pack: Pack, weight: float) -> tuple[Tensor, Tensor]:
        """Return the loss () and the detached sums named by ``SUMS`` (9,) float64.

        ``weight`` is 0 for a repeat that only keeps ranks in step, otherwise 1.
        """
        losses = self.student(pack, self.supervision)
        counts = self.counts(pack, losses.predictions)
        loss, sums = self.measure(losses, on_device(counts, losses.text_K.device))
        return weight * loss, weight * sums

    def counts(self, pack: Pack, predictions: int) -> Tensor:
        """Return the sums (9,) that the host knows of a pack, 0 where it does not, float64.

        ``predictions`` is the number of tokens at which the vocabulary head runs.
        """
        groundings = sum(sample.target_rows is not None for sample in pack.samples)
        known: Mapping[str, float] = {
            "samples": len(pack.samples),
            "texts": len(pack.samples) - groundings,
            "groundings": groundings,
            "tokens": pack.tokens,
            "flops": self.operations.of(pack, predictions),
        }
        return torch.tensor([known.get(name, 0) for name in SUMS], dtype=torch.float64)

    def measure(self, losses: PackLosses, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss () and the detached sums (9,) of a pack, given its ``counts`` (9,)."""
        loss = losses.total(self.supervision.weight)
        measured = {
            "loss": loss,
            "text": losses.text_K.sum(),
            "grounding": losses.grounding_K.sum(),
            "supervision": losses.supervision * losses.counted_K.sum(),
        }
        sums = [
            measured[name].detach().double() if name in measured else count
            for name, count in zip(SUMS, counts.unbind(), strict=True)
        ]
        return loss, torch.stack(sums)
