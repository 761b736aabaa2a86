"""What would fit where a training does not: single changes first, each tried by its estimate."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from threedrs.config.load import CHECKOUT, Config
from threedrs.config.resources import GPUS
from threedrs.config.yaml_files import overlaid
from threedrs.planning.training import Machine, Plan, plan_run
from threedrs.training.recipe import read_deepspeed

MOST_GPUS = 64
LORA = {"rank": 16, "alpha": 32}
RECOMPUTED = {"gradient_checkpointing": True, "kept_layers": "auto"}
# What keeps the least at a time; it costs time, but no result depends on it but that of the pack.
LEAN = {"execution": RECOMPUTED, "train": {"pack": 1}}


def what_fits(
    config: Config, machine: Machine, plan: Plan, *, teacher_channels: int, samples: int
) -> list[str]:
    """Return the changes, of those tried, with which a resolved run fits its GPUs, as typed.

    A kind of change that is not enough alone is tried with recomputation of the layers for which
    there is no room, and a pack of one sample. The arguments are those of `plan_run`, and ``plan``
    is what it returned.
    """
    found = []
    for kind in _kinds(config, machine, plan):
        # The first of a kind that fits: the others of it cost more.
        for change, gpus in (*kind, *((overlaid(change, LEAN), gpus) for change, gpus in kind)):
            changed = overlaid(config, change)
            plan = plan_run(changed, gpus, teacher_channels=teacher_channels, samples=samples)
            if plan.total <= gpus.memory:
                hosts = plan.host_memory / 1e9
                also = f", and {hosts:.0f} GB of host memory" if hosts else ""
                words = ", ".join(_words(config, change, machine, gpus))
                found.append(f"{words} ({plan.total / 1e9:.1f} GB a GPU{also})")
                break
    return found


def _kinds(config: Config, machine: Machine, plan: Plan) -> Iterator[list[tuple[Config, Machine]]]:
    """Yield each kind of change: what is laid over the run, and the GPUs, the cheapest first."""
    train, execution = config["train"], config["execution"]
    if not execution["gradient_checkpointing"]:
        yield [({"execution": RECOMPUTED}, machine)]
    elif execution["kept_layers"] not in (0, "auto"):
        yield [({"execution": {"kept_layers": plan.most_kept_layers}}, machine)]
    packs = range(train["pack"] - 1, 0, -1)
    yield [({"train": {"pack": pack}}, machine) for pack in packs if train["pack"] % pack == 0]
    stage = read_deepspeed(Path(execution["deepspeed"]))["zero_optimization"]["stage"]
    for file in ("zero3.json",) * (stage != 3 and machine.gpus > 1) + ("zero3_offload.json",):
        path = (CHECKOUT / "config/deepspeed" / file).as_posix()
        yield [({"execution": {"deepspeed": path}}, machine)]
    packs_a_step = train["global_batch"] // train["pack"]
    more = range(machine.gpus + 1, MOST_GPUS + 1)
    yield [({}, replace(machine, gpus=gpus)) for gpus in more if packs_a_step % gpus == 0]
    yield [
        ({}, replace(machine, memory=memory * 1e9, peak=peak))
        for memory, peak in sorted({(memory, peak) for peak, memory in GPUS.values()})
        if memory * 1e9 > machine.memory
    ]
    if train["lora"] is None:
        yield [({"train": {"lora": LORA}}, machine)]


def _words(config: Config, change: Config, machine: Machine, gpus: Machine) -> Iterator[str]:
    """Yield the parts of a change as one types them, without what is so already."""
    if gpus.gpus != machine.gpus:
        yield f"--gpus {gpus.gpus}"
    if gpus.memory != machine.memory:
        name = next(name for name, (_, memory) in GPUS.items() if memory * 1e9 == gpus.memory)
        yield f"--gpu {name}"
    for section, keys in change.items():
        for key, value in keys.items():
            if config[section][key] != value:
                shown = str(value).removeprefix(f"{CHECKOUT.as_posix()}/").replace("'", "")
                yield f"{section}.{key}: {'true' if value is True else shown}"
