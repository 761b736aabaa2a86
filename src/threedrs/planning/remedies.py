"""What would fit where a training does not: single changes first, each tried by its estimate."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from threedrs.config.load import CHECKOUT, Config
from threedrs.config.resources import GPUS
from threedrs.planning.training import Machine, Plan, plan_run
from threedrs.training.recipe import read_deepspeed

MOST_GPUS = 64
LORA = {"rank": 16, "alpha": 32}
# What keeps the least at a time; it costs time, but no result depends on it but that of the pack.
LEAN = {"execution": {"gradient_checkpointing": True, "kept_layers": 0}, "train": {"pack": 1}}


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change with which a training fits, in the words to type, and its estimate."""

    change: str
    plan: Plan


def what_fits(
    config: Config, machine: Machine, plan: Plan, *, teacher_channels: int, samples: int
) -> list[Remedy]:
    """Return the changes, of those tried, with which a resolved run fits its GPUs.

    A kind of change that is not enough alone is tried with recomputation of all layers and a pack
    of one sample.

    Args:
        config: the resolved run.
        machine: the GPUs, which are too small.
        plan: the run's estimate for them.
        teacher_channels: 0 without a teacher.
        samples: number of them in an epoch.
    """
    lean = _without_what_is_so(LEAN, config)
    found = []
    for kind in _kinds(config, machine, plan):
        # The first of a kind that fits: the others of it cost more.
        for change, gpus in (*kind, *((_merged(change, lean), gpus) for change, gpus in kind)):
            plan = plan_run(
                _merged(config, change), gpus, teacher_channels=teacher_channels, samples=samples
            )
            if plan.total <= gpus.memory:
                found.append(Remedy(change=_words(change, gpus, machine, plan), plan=plan))
                break
    return found


def _kinds(config: Config, machine: Machine, plan: Plan) -> Iterator[list[tuple[Config, Machine]]]:
    """Yield each kind of change: what is laid over the run, and the GPUs, the cheapest first."""
    train, execution = config["train"], config["execution"]
    if not execution["gradient_checkpointing"]:
        yield [({"execution": {"gradient_checkpointing": True, "kept_layers": 0}}, machine)]
    elif execution["kept_layers"]:
        yield [({"execution": {"kept_layers": plan.most_kept_layers}}, machine)]
    packs = [pack for pack in range(train["pack"] - 1, 0, -1) if train["pack"] % pack == 0]
    if packs:
        yield [({"train": {"pack": pack}}, machine) for pack in packs]
    stage = read_deepspeed(execution["deepspeed"])["zero_optimization"]["stage"]
    for file in ("zero3.json",) * (stage != 3 and machine.gpus > 1) + ("zero3_offload.json",):
        path = (CHECKOUT / "config/deepspeed" / file).as_posix()
        yield [({"execution": {"deepspeed": path}}, machine)]
    spread = range(machine.gpus + 1, MOST_GPUS + 1)
    packs_a_step = train["global_batch"] // train["pack"]
    more = [replace(machine, gpus=gpus) for gpus in spread if packs_a_step % gpus == 0]
    if more:
        yield [({}, gpus) for gpus in more]
    larger = sorted({(memory * 1e9, peak) for peak, memory in GPUS.values()})
    yield [
        ({}, replace(machine, memory=memory, peak=peak))
        for memory, peak in larger
        if memory > machine.memory
    ]
    if train["lora"] is None:
        yield [({"train": {"lora": LORA}}, machine)]


def _words(change: Config, gpus: Machine, machine: Machine, plan: Plan) -> str:
    """Return a change as one types it."""
    words = []
    if gpus.gpus != machine.gpus:
        words.append(f"--gpus {gpus.gpus}")
    if gpus.memory != machine.memory:
        name = next(n for n, (_, memory) in GPUS.items() if memory * 1e9 == gpus.memory)
        words.append(f"--gpu {name}")
    for section, keys in change.items():
        for key, value in keys.items():
            shown = str(value).removeprefix(f"{CHECKOUT.as_posix()}/").replace("'", "")
            words.append(f"{section}.{key}: {'true' if value is True else shown}")
    hosts = f", and {plan.host_memory / 1e9:.0f} GB of host memory" if plan.host_memory else ""
    return f"{', '.join(words)} ({plan.total / 1e9:.1f} GB a GPU{hosts})"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Config:
    """Return sections with those of ``above`` on top."""
    return {**below, **{name: {**below.get(name, {}), **keys} for name, keys in above.items()}}


def _without_what_is_so(change: Mapping[str, Any], config: Config) -> Config:
    kept = {
        name: {key: value for key, value in keys.items() if config[name][key] != value}
        for name, keys in change.items()
    }
    return {name: keys for name, keys in kept.items() if keys}
