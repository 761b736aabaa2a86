"""One optimizer step: the loss of a pack, and the step over the packs of a batch.

The gradient of a step is the mean over exactly the samples of its batch, however they are packed
and spread over ranks. A step that is not finite leaves the state of the step before.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from threedrs.config.schema import SupervisionSettings
from threedrs.distributed.ranks import AgreedError, Ranks
from threedrs.models.packing import Pack, PackLosses, on_device
from threedrs.models.student import Student
from threedrs.training.flops import OperationCount

# Sums over samples that a step reports, in this order, beside the flags of `StepOutcome`.
SUMS = ("loss", "samples", "text", "texts", "grounding", "groundings", "supervision", "tokens",
        "flops")  # fmt: skip


class NonFiniteError(AgreedError):
    """A loss or a gradient is NaN or infinite; the weights are those of the step before."""


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


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """An optimizer step: sums over the batch's samples (``SUMS``), and what the ranks agreed on."""

    sums: dict[str, float]
    grad_norm: float
    interrupted: bool


def _refuse_not_finite(what: str, own_ids: list[str], ranks: Ranks) -> None:
    """Raise the same error on every rank, naming each rank's samples."""
    ids_of_rank: list[list[str]] = [[] for _ in range(ranks.count)]
    torch.distributed.all_gather_object(ids_of_rank, own_ids)
    where = "; ".join(f"rank {r}: {', '.join(ids)}" for r, ids in enumerate(ids_of_rank) if ids)
    raise NonFiniteError(f"the {what} is not finite ({where})")


def _add_gradient(engine: Any, pack: Pack, weight: float, scale: float) -> Tensor:
    """Add the gradient of ``weight`` x ``scale`` times a pack's loss; return its sums (9,)."""
    if engine.passes is not None:
        assert weight == 1, "a rank alone repeats no pack"
        return engine.passes.add_gradient(pack, scale)
    loss, row = engine(pack, weight)
    engine.backward(loss * scale, scale_wrt_gas=False)
    return row


def train_step(
    engine: Any,
    micro_steps: Iterable[tuple[Pack, float]],
    *,
    micro_step_count: int,
    samples: int,
    ranks: Ranks,
    interrupted: Callable[[], bool],
) -> StepOutcome:
    """Run one optimizer step over this rank's packs of a batch, which come with their weights.

    There are ``micro_step_count`` of them on each rank, and ``samples`` in the batch of all ranks.
    ``interrupted`` says, after the backward passes, whether this rank was asked to stop.

    Raises:
        NonFiniteError: a loss or the gradient is NaN or infinite, on any rank.
    """
    rows, ids = [], []
    for number, (pack, weight) in enumerate(micro_steps, start=1):
        # Gradients add up over the micro-steps of a batch. DeepSpeed would count to a fixed number
        # of them, but batches are cut into different numbers of packs; so it is told the last one.
        engine.set_gradient_accumulation_boundary(number == micro_step_count)
        # A loss is a sum over samples, and DeepSpeed takes the mean over ranks. This factor makes
        # the gradient the mean over the batch's samples. DeepSpeed's own division by the number of
        # micro-steps is off, because packs hold different numbers of samples.
        rows.append(_add_gradient(engine, pack.to(ranks.device), weight, ranks.count / samples))
        ids.append([sample.id for sample in pack.samples])
    # Only here does the CPU wait for the losses; before, it ran ahead of the GPU.
    finite = [bool(row.isfinite().all()) for row in rows]
    flags = torch.tensor([not all(finite), interrupted()], dtype=torch.float64, device=ranks.device)
    # One reduction carries the sums and both flags. So all ranks decide alike whether to take the
    # step and whether to stop after it; a rank alone would wait for the others for ever.
    totals = torch.cat([torch.stack(rows).sum(dim=0), flags])
    torch.distributed.all_reduce(totals)
    *sums, not_finite, any_interrupted = totals.tolist()
    if not_finite:  # before the update, so that the weights are still good
        bad = [name for names, good in zip(ids, finite, strict=True) if not good for name in names]
        _refuse_not_finite("loss", bad, ranks)
    engine.step()  # clips, updates, zeroes the gradients, moves the learning rate on
    if not engine.was_step_applied():  # the norm of the gradient is not finite
        _refuse_not_finite("gradient", [name for names in ids for name in names], ranks)
    return StepOutcome(
        sums=dict(zip(SUMS, sums, strict=True)),
        grad_norm=float(engine.get_global_grad_norm()),
        interrupted=any_interrupted > 0,
    )


def step_row(
    step: int, seen: int, sums: Mapping[str, float], *, rate: float, grad_norm: float, speed: float
) -> dict[str, Any]:
    """Return a step's row of log.jsonl.

    ``text`` and ``grounding`` are means over the batch's samples of that kind, or null if it has
    none. ``loss`` and ``supervision`` are means over all samples. The supervision's weight is in
    ``loss`` only.
    """
    return {
        "step": step,
        "samples": seen,
        "loss": sums["loss"] / sums["samples"],
        "text": sums["text"] / sums["texts"] if sums["texts"] else None,
        "grounding": sums["grounding"] / sums["groundings"] if sums["groundings"] else None,
        "supervision": sums["supervision"] / sums["samples"],
        "lr": rate,
        "grad_norm": grad_norm,
        "samples_per_second": round(speed, 4),
    }
