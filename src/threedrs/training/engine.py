"""The engine of a run: AdamW over the student's trained parameters, by DeepSpeed or on one rank."""

import math
from typing import Any

import torch
from pydantic import ValidationError

from threedrs.config.schema import SupervisionSettings
from threedrs.distributed.ranks import Ranks
from threedrs.errors import ConfigError
from threedrs.models.lora.layers import train_only
from threedrs.models.student import Student
from threedrs.training.flops import OperationCount
from threedrs.training.one_rank_engine import FlatGroups, OneRankEngine
from threedrs.training.recipe import TrainSettings, is_offloaded, read_deepspeed
from threedrs.training.recorded_passes import recorded_passes
from threedrs.training.step import PackObjective


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
    engine.passes = passes  # None here
    if stage == 2 and not offloaded:
        # ZeRO-2 looks for values that are not finite in each gradient, which takes 13 kernels a
        # parameter, and then in the gradient's norm. The second look alone finds all of them.
        engine.optimizer.check_overflow = lambda partition_gradients: None
    return engine
