"""DeepSpeed around the student: ranks, objective, optimizer, and one exact optimizer step.

The gradient of a step is the mean over exactly the samples of its batch, however they are packed
and spread over ranks: a pack's loss is the sum over its samples, each rank adds up its packs, and
DeepSpeed's mean over ranks is undone by the factor ``ranks / samples``. The losses of a step are
checked on all ranks before the update, its gradient norm by DeepSpeed before it touches a weight;
so a step that is not finite leaves the state of the step before.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import nn

from threedrs.errors import ConfigError, MachineError, ThreedrsError
from threedrs.files import read_json
from threedrs.models.samples import Pack
from threedrs.models.settings import SupervisionSettings
from threedrs.models.student import Student
from threedrs.training.flops import pack_flops
from threedrs.training.settings import TrainSettings

T = TypeVar("T")

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
# Keys that the recipe sets and a DeepSpeed file must leave out.
RECIPE_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "fp16",
    "optimizer",
    "scheduler",
)


class AgreedError(ThreedrsError):
    """All ranks raise it alike; the first one tells the user."""


class NonFiniteError(AgreedError):
    """A loss or a gradient is NaN or infinite; the weights are those of the step before."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


def start_ranks() -> Ranks:
    """Join the process group that torchrun describes; without torchrun, be a group of one.

    NCCL on GPUs, gloo on CPU. A lone process needs neither a port nor a network interface. On CPU,
    DeepSpeed's shared-memory helper, which it would compile for a minute at its first start, is
    left out: gloo does its work.

    Raises:
        MachineError: this node has fewer GPUs than ranks.
    """
    cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    lone = "RANK" not in os.environ
    if lone:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ.update(alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"})
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    if cuda:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise MachineError(
                f"local rank {local} has no GPU ({torch.cuda.device_count()} found); start as many "
                "ranks a node as it has GPUs"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    import deepspeed  # after DS_ACCELERATOR is set; takes seconds

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch 2.13 renames; one warning a call and layer.
    warnings.filterwarnings("ignore", message="`torch.distributed", category=FutureWarning)
    # The device under the current context, which this asks to confirm, is the one set above.
    warnings.filterwarnings("ignore", message=r"barrier\(\): using the device")
    if not cuda:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if cuda else "gloo"
    if lone:
        torch.distributed.init_process_group(
            backend, store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return Ranks(rank=rank, count=count, device=device)


def agree(ranks: Ranks, decide: Callable[[], T]) -> T:
    """Return what ``decide`` returns on the first rank, the only one that runs it.

    Raises:
        AgreedError: on all ranks, if ``decide`` raised an error that the user can put right.
    """
    answer: list[Any] = [None, None]
    if ranks.first:
        try:
            answer[0] = decide()
        except ThreedrsError as error:
            answer[1] = str(error)
    torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise AgreedError(answer[1])
    return answer[0]


class PackObjective(nn.Module):
    """The loss of a pack: the sum over its samples of text or grounding loss plus the 3D loss."""

    def __init__(self, student: Student, supervision: SupervisionSettings) -> None:
        super().__init__()
        self.student = student
        self.supervision = supervision

    def forward(self, pack: Pack, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss () and the detached sums named by ``SUMS`` (9,) float64.

        Args:
            pack: the samples of one scene; its K samples share one 3D loss, each counts it.
            weight: 0 for a repeat that only keeps ranks in step, otherwise 1.
        """
        losses = self.student(pack, self.supervision)
        loss = losses.total(self.supervision.weight)
        samples = len(pack.samples)
        groundings = int(losses.is_grounding_K.sum())
        values = {
            "loss": loss,
            "samples": samples,
            "text": losses.text_K.sum(),
            "texts": samples - groundings,
            "grounding": losses.grounding_K.sum(),
            "groundings": groundings,
            "supervision": losses.supervision * samples,
            "tokens": losses.counts["tokens"],
            "flops": pack_flops(self.student, pack, losses.counts["labels"]),
        }
        sums = [torch.as_tensor(values[name]).detach().to(loss.device).double() for name in SUMS]
        return weight * loss, weight * torch.stack(sums)


def deepspeed_config(settings: TrainSettings, ranks: int) -> dict[str, Any]:
    """Return the DeepSpeed file of the recipe with what the recipe itself decides filled in.

    Raises:
        ConfigError: the file sets one of those keys, or its ZeRO stage is not 2 or 3.
    """
    path = Path(settings.deepspeed)
    config = read_json(path)
    taken = [key for key in RECIPE_KEYS if key in config]
    if taken:
        raise ConfigError(f"{path}: remove {', '.join(taken)}; the section `train` sets them")
    stage = config.get("zero_optimization", {}).get("stage")
    if stage not in (2, 3):
        raise ConfigError(f"{path}: zero_optimization.stage is {stage}; expected 2 or 3")
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
        ConfigError: see `deepspeed_config`.
    """
    config = deepspeed_config(settings, ranks)
    return config if config["zero_optimization"]["stage"] == 3 else None


def parameter_groups(student: Student, settings: TrainSettings) -> list[dict[str, Any]]:
    """Freeze what is not tunable; return the optimizer's groups with their learning rates."""
    groups = []
    for name, parameters in student.parameter_groups().items():
        tunable = name in settings.tunable
        for parameter in parameters:
            parameter.requires_grad_(tunable)
        vision = name == "vision_tower"
        rate = settings.learning_rate_vision_tower if vision else settings.learning_rate
        if tunable and parameters:
            groups.append({"params": list(parameters), "lr": rate, "name": name})
    return groups


def build_engine(
    student: Student,
    settings: TrainSettings,
    supervision: SupervisionSettings,
    ranks: Ranks,
    total_steps: int,
) -> Any:
    """Return the DeepSpeed engine: AdamW, warm-up then cosine to 0 over ``total_steps``."""
    import deepspeed
    from transformers import get_cosine_schedule_with_warmup

    config = deepspeed_config(settings, ranks.count)
    groups = parameter_groups(student, settings)
    cuda = ranks.device.type == "cuda"
    offloaded = "offload_optimizer" in config["zero_optimization"]
    optimizer: torch.optim.Optimizer
    if cuda and offloaded:
        optimizer = deepspeed.ops.adam.DeepSpeedCPUAdam(groups, weight_decay=settings.weight_decay)
    else:
        config["zero_force_ds_cpu_optimizer"] = False
        optimizer = torch.optim.AdamW(
            groups, weight_decay=settings.weight_decay, fused=cuda and not offloaded
        )
    warm_up = math.ceil(settings.warmup_fraction * total_steps)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warm_up, total_steps)
    engine, _, _, _ = deepspeed.initialize(
        model=PackObjective(student, supervision),
        optimizer=optimizer,
        lr_scheduler=scheduler,
        config=config,
    )
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


def train_step(
    engine: Any,
    micro_steps: Iterable[tuple[Pack, float]],
    *,
    micro_step_count: int,
    samples: int,
    ranks: Ranks,
    interrupted: bool,
) -> StepOutcome:
    """Run one optimizer step over this rank's packs of a batch.

    Args:
        engine: from ``build_engine``.
        micro_steps: this rank's packs with their weights, ``micro_step_count`` of them.
        micro_step_count: the same on all ranks.
        samples: of the whole batch, over all ranks.
        ranks: this process among the run's.
        interrupted: whether this rank was asked to stop; the outcome says if any was.

    Raises:
        NonFiniteError: a loss or the gradient is NaN or infinite, on any rank.
    """
    rows, ids = [], []
    for number, (pack, weight) in enumerate(micro_steps, start=1):
        engine.set_gradient_accumulation_boundary(number == micro_step_count)
        loss, row = engine(pack.to(ranks.device), weight)
        engine.backward(loss * (ranks.count / samples), scale_wrt_gas=False)
        rows.append(row)
        ids.append([sample.id for sample in pack.samples])
    finite = [bool(row.isfinite().all()) for row in rows]
    flags = torch.tensor([not all(finite), interrupted], dtype=torch.float64, device=ranks.device)
    totals = torch.cat([torch.stack(rows).sum(dim=0), flags])
    torch.distributed.all_reduce(totals)
    *sums, not_finite, any_interrupted = totals.tolist()
    if not_finite:
        bad = [name for names, good in zip(ids, finite, strict=True) if not good for name in names]
        _refuse_not_finite("loss", bad, ranks)
    engine.step()
    if not engine.was_step_applied():
        _refuse_not_finite("gradient", [name for names in ids for name in names], ranks)
    return StepOutcome(
        sums=dict(zip(SUMS, sums, strict=True)),
        grad_norm=float(engine.get_global_grad_norm()),
        interrupted=any_interrupted > 0,
    )
