"""One optimizer step: the engine around the objective of a pack, and the step itself.

The gradient of a step is the mean over exactly the samples of its batch, however they are packed
and spread over ranks. A step that is not finite leaves the state of the step before.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from pydantic import ValidationError

from threedrs.config.schema import SupervisionSettings
from threedrs.distributed.ranks import AgreedError, Ranks
from threedrs.errors import ConfigError
from threedrs.models.lora.layers import train_only
from threedrs.models.packing import Pack
from threedrs.models.student import Student
from threedrs.training.flops import OperationCount
from threedrs.training.one_rank_engine import FlatGroups, OneRankEngine
from threedrs.training.pack_objective import SUMS, PackObjective
from threedrs.training.recipe import TrainSettings, is_offloaded, read_deepspeed
from threedrs.training.recorded_passes import recorded_passes


class NonFiniteError(AgreedError):
    """A loss or a gradient is NaN or infinite; the weights are those of the step before."""


def deepspeed_config(settings: TrainSettings, ranks: int) -> dict[str, Any]:
    """Return the DeepSpeed file of the recipe with what the recipe itself decides filled in.

    Raises:
        ConfigError: see `read_deepspeed`; or the batch does not divide over the ranks.
        DataError: the file is missing or malformed.
    """
    config = read_deepspeed(settings.deepspeed)
    return config | {
        "train_micro_batch_size_per_gpu": settings.pack,
        "gradient_accumulation_steps": settings.accumulation(ranks),
        "gradient_clipping": settings.gradient_clip,
        "bf16": {"enabled": settings.precision == "bfloat16"},
        "steps_per_print": 2**31 - 1,
    }


def zero_init(settings: TrainSettings, ranks: int) -> dict[str, Any] | None:
    """Return what ``load_student`` needs to spread a ZeRO-3 run's student; None for ZeRO-2.

    Raises:
        ConfigError: see `deepspeed_config`; or DeepSpeed itself refuses a setting.
    """
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config = deepspeed_config(settings, ranks)
    try:
        DeepSpeedZeroConfig(**config["zero_optimization"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("zero_optimization", *first["loc"])))
        raise ConfigError(f"{settings.deepspeed}: {key}: {first['msg']}") from error
    return config if config["zero_optimization"]["stage"] == 3 else None


def build_engine(
    student: Student,
    settings: TrainSettings,
    supervision: SupervisionSettings,
    ranks: Ranks,
    total_steps: int,
) -> Any:
    """Return the engine: AdamW, warm-up then cosine to 0 over ``total_steps``.

    It is DeepSpeed's, but for ZeRO-2 on one rank, where nothing is shared (`OneRankEngine`).
    """
    import deepspeed
    from transformers import get_cosine_schedule_with_warmup

    config = deepspeed_config(settings, ranks.count)
    stage = config["zero_optimization"]["stage"]
    rates = {"vision_tower": settings.learning_rate_vision_tower}
    groups = [
        {"params": parameters, "lr": rates.get(name, settings.learning_rate), "name": name}
        for name, parameters in train_only(student, settings.tunable).items()
        if parameters
    ]
    cuda = ranks.device.type == "cuda"
    offloaded = is_offloaded(config, "optimizer")
    flat = None
    if stage == 2 and ranks.count == 1 and not offloaded:
        student.to(device=ranks.device, dtype=getattr(torch, settings.precision))
        flat = FlatGroups(groups)
        groups = flat.adamw_groups
    optimizer: torch.optim.Optimizer
    if cuda and offloaded:
        optimizer = deepspeed.ops.adam.DeepSpeedCPUAdam(groups, weight_decay=settings.weight_decay)
    else:
        # Without a GPU, DeepSpeed must not insist on its own CPU optimizer, which it compiles.
        config["zero_force_ds_cpu_optimizer"] = False
        optimizer = torch.optim.AdamW(
            groups, weight_decay=settings.weight_decay, fused=cuda and not offloaded
        )
    # Over the whole run, so that a resumed run has the learning rates of an uninterrupted one.
    warm_up = math.ceil(settings.warmup_fraction * total_steps)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warm_up, total_steps)
    objective = PackObjective(student, supervision, OperationCount(student, settings.tunable))
    passes = recorded_passes(objective, settings, ranks, alone=flat is not None)
    if flat is not None:
        flat.optimizer = optimizer
        clip = settings.gradient_clip
        return OneRankEngine(objective, flat, scheduler, gradient_clip=clip, passes=passes)
    engine, _, _, _ = deepspeed.initialize(
        model=objective, optimizer=optimizer, lr_scheduler=scheduler, config=config
    )
    if stage == 2 and not offloaded:
        # ZeRO-2 looks for values that are not finite in each gradient, which takes 13 kernels a
        # parameter, and then in the gradient's norm. The second look alone finds all of them.
        engine.optimizer.check_overflow = lambda partition_gradients: None
    return engine


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


def _add_gradient(engine: Any, pack: Pack, weight: float, scale: float) -> torch.Tensor:
    """Add the gradient of ``weight`` x ``scale`` times a pack's loss; return its sums (9,)."""
    if isinstance(engine, OneRankEngine) and engine.passes is not None:
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
    own_flags = [not all(finite), interrupted()]
    flags = torch.tensor(own_flags, dtype=torch.float64, device=ranks.device)
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
