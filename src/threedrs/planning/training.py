"""The memory of each GPU and the time of an epoch that a training will need.

Memory follows from a full pack (`threedrs.training.full_pack`).

Time of a step, by what was measured (benchmarks/RESULTS.md). For the operations of a pack's forward
and backward passes (`threedrs.training.flops`), with the second forward pass of what is recomputed,
the GPUs reach ``REACHED`` of their peak, much or little recomputed. A small student's pack waits
for the host, which launches its kernels in ``LAUNCHED`` or replays them in ``REPLAYED``: one
training of config/small.yaml on a GPU. A step of ZeRO-3 takes ``ZERO3_STEP`` beside its packs.
Utilisation is the share of the peak in all this, without what is recomputed; where the user names
it, the time follows from it alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from threedrs.config.resources import GPUS
from threedrs.errors import ConfigError
from threedrs.models.lora.layers import add_lora
from threedrs.models.model_settings import ModelSettings
from threedrs.models.new_student import empty_student
from threedrs.training.engine import deepspeed_config
from threedrs.training.full_pack import FullPack
from threedrs.training.recipe import TrainSettings

NODE = 8  # GPUs
# Samples of the paper's mix by task group: ScanQA and SQA3D, Scan2Cap, ScanRefer and Multi3DRefer.
PAPER_GROUPS = {"questions": 26_515 + 79_445, "captions": 36_665, "grounding": 36_665 + 43_838}
PAPER_SAMPLES = sum(PAPER_GROUPS.values())
REACHED = 0.44
LAUNCHED = 0.05  # seconds a pack
REPLAYED = 0.02  # seconds a pack, of recorded passes
ZERO3_STEP = 0.12  # seconds
PEAK = GPUS["H100"][0]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The GPUs of a run: how many, bytes of memory and operations a second of each."""

    gpus: int
    memory: float
    peak: float = PEAK
    utilisation: float | None = None

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in (self.gpus, self.memory, self.peak)):
            raise ConfigError("plan: --gpus, --gpu-memory and --peak must be finite and above 0")
        if self.utilisation is not None and not 0 < self.utilisation <= 1:
            raise ConfigError(f"plan: --utilisation {self.utilisation} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The estimate of one run."""

    parameters: int
    tokens: int  # sequence of a full pack
    memory: dict[str, float]  # bytes of a GPU, by part
    least: float  # their sum where layers that need not keep their activations keep none
    host_memory: float  # bytes of all hosts together
    utilisation: float
    seconds_a_step: float
    hours_an_epoch: float
    steps_an_epoch: int
    # Layers of both towers, and how many keep their activations, None where nothing is recomputed.
    # How many could, None with `auto` too, which leaves room on purpose.
    layers: int
    kept_layers: int | None
    most_kept_layers: int | None

    @property
    def total(self) -> float:
        """Total bytes of memory of each GPU."""
        return sum(self.memory.values())


def _task_groups(samples: int) -> dict[str, int]:
    """Return the samples of each task group of a mix of so many, in the paper's proportions."""
    # The groups end where they would end in the paper's mix, so their sum is the mix's size.
    ends = [samples * end // PAPER_SAMPLES for end in accumulate(PAPER_GROUPS.values())]
    sizes = (end - before for before, end in pairwise([0, *ends]))
    return dict(zip(PAPER_GROUPS, sizes, strict=True))


def usual_gpus(config: Mapping[str, Any]) -> int:
    """Return the most GPUs, up to a node's ``NODE``, among which a resolved run's batch divides."""
    settings = TrainSettings.from_config(config)
    packs = settings.global_batch / settings.pack
    # A batch that divides among none is refused by the plan, with the settings that would do.
    return max((n for n in range(1, NODE + 1) if (packs / n).is_integer()), default=1)


def plan_run(
    config: Mapping[str, Any], machine: Machine, *, teacher_channels: int, samples: int
) -> Plan:
    """Return the estimate of a resolved run whose epoch has so many samples.

    There are 0 ``teacher_channels`` without a teacher.

    Raises:
        ConfigError: a setting is wrong, or the batch does not fit the GPUs.
    """
    settings = TrainSettings.from_config(config)
    deepspeed = deepspeed_config(settings, machine.gpus)
    # What the checkpoint holds is of the size that is named, so the plan reads its grid alone.
    grid = ModelSettings.from_config(config).known_grid
    model = {**config["model"], "path": None, "random_weights": True, "grid": grid}
    student = empty_student(ModelSettings.from_config({**config, "model": model}), teacher_channels)
    if settings.lora is not None:
        add_lora(student, settings.lora, (0, 1), seed=0)  # which rows makes no difference
    pack = FullPack(student=student, settings=settings, frames=config["frames"]["count"])
    least = sum(pack.fitted(deepspeed, machine.gpus, 0).memory(deepspeed, machine.gpus).values())
    pack = pack.fitted(deepspeed, machine.gpus, machine.memory)
    a_pack, repeated = pack.operations()
    packs = settings.accumulation(machine.gpus)
    fastest = packs * a_pack / machine.peak
    if machine.utilisation is not None:
        seconds = fastest / machine.utilisation
    else:
        host = REPLAYED if pack.is_recorded(deepspeed, machine.gpus) else LAUNCHED
        seconds = packs * max((a_pack + repeated) / (REACHED * machine.peak), host)
        seconds += ZERO3_STEP * (deepspeed["zero_optimization"]["stage"] == 3)
    memory = pack.memory(deepspeed, machine.gpus)
    most = None
    if settings.kept_layers != "auto":
        most = pack.most_kept_layers(deepspeed, machine.gpus, machine.memory)
    return Plan(
        parameters=pack.parameters[0],
        tokens=pack.tokens,
        memory=memory,
        least=least,
        host_memory=pack.host_memory(deepspeed),
        utilisation=fastest / seconds,
        seconds_a_step=seconds,
        hours_an_epoch=samples / settings.global_batch * seconds / 3600,
        steps_an_epoch=settings.steps_per_epoch(_task_groups(samples)),
        layers=pack.layers,
        kept_layers=pack.kept_layers,
        most_kept_layers=most,
    )
