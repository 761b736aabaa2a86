"""The order of samples: which packs make which optimizer step, and which rank runs which pack.

A pack is up to K samples of one scene that share a sequence. The samples of a scene are shuffled
and cut into packs of K, and what is left makes a smaller pack. Batches hold exactly
``global_batch`` samples. Most batches consist of full packs, none of which is split. The others
consist of small packs, where a pack that straddles a boundary is split. So every sample is seen
once an epoch, and a batch mixes scenes and benchmarks. With K = 1 the order is a plain shuffle, the
paper's recipe; with K > 1 a batch holds fewer scenes.

The order depends on seed and epoch only. The ranks divide the packs of a batch afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """Samples of one scene that share a sequence.

    Attributes:
        scene: their scene.
        indices: their indices in the mix.
        weight: 1, or 0 for a repeat that only keeps a rank in step with the others.
    """

    scene: str
    indices: tuple[int, ...]
    weight: float = 1.0


Batch = tuple[PackPlan, ...]


def _plan_packs(scenes: Sequence[str], pack: int, generator: np.random.Generator) -> list[PackPlan]:
    """Return the packs of an epoch, at most ``pack`` samples each, in random order."""
    # One shuffle of all samples shuffles each scene's, and spreads its benchmarks over its packs.
    samples_of_scene: dict[str, list[int]] = {}
    for index in generator.permutation(len(scenes)):
        samples_of_scene.setdefault(scenes[index], []).append(int(index))
    packs = [
        PackPlan(scene=scene, indices=tuple(indices[start : start + pack]))
        for scene, indices in samples_of_scene.items()
        for start in range(0, len(indices), pack)
    ]
    return [packs[position] for position in generator.permutation(len(packs))]


def _cut(packs: Sequence[PackPlan], size: int) -> list[Batch]:
    """Return batches of exactly ``size`` samples, the last of at most that many."""
    batches: list[Batch] = []
    current: list[PackPlan] = []
    room = size
    for plan in packs:
        rest = plan.indices
        while rest:
            taken, rest = rest[:room], rest[room:]
            current.append(PackPlan(scene=plan.scene, indices=taken))
            room -= len(taken)
            if room == 0:
                batches.append(tuple(current))
                current, room = [], size
    return [*batches, tuple(current)] if current else batches


def plan_batches(
    scenes: Sequence[str], *, pack: int, global_batch: int, drop_last: bool, seed: int, epoch: int
) -> list[Batch]:
    """Return an epoch's batches of exactly ``global_batch`` samples, in order.

    The last batch may hold fewer samples; with ``drop_last`` it is left out.

    Args:
        scenes: scene of each sample, in the mix's order.
        pack: K, the most samples a pack holds.
        global_batch: samples of a batch.
        drop_last: whether to leave out a short last batch.
        seed: of the run.
        epoch: counted from 0; each has its own order.
    """
    generator = np.random.default_rng([seed, epoch])
    packs = _plan_packs(scenes, pack, generator)
    # Full packs first, so that they fill whole batches: K divides the batch.
    full_first = sorted(packs, key=lambda plan: len(plan.indices) < pack)
    batches = _cut(full_first, global_batch)
    # A short batch comes last, wherever the small packs go: a resumed run and the learning rates
    # count whole batches.
    last = [batches.pop()] if batches and sample_count(batches[-1]) < global_batch else []
    mixed = [batches[position] for position in generator.permutation(len(batches))]
    return mixed if drop_last else mixed + last


def batches_per_epoch(samples: int, global_batch: int, drop_last: bool) -> int:
    """Return the number of optimizer steps of an epoch, without planning it."""
    whole, rest = divmod(samples, global_batch)
    return whole if drop_last or rest == 0 else whole + 1


def sample_count(batch: Batch) -> int:
    """Return the number of samples in ``batch``, without repeats."""
    return sum(len(plan.indices) for plan in batch if plan.weight > 0)


def micro_steps(batch: Batch, rank: int, ranks: int) -> list[PackPlan]:
    """Return the packs that ``rank`` runs for ``batch``, as many as every other rank."""
    # Longest first, round the ranks: the ranks of a micro-step then carry about the same load.
    ordered = sorted(batch, key=lambda plan: -len(plan.indices))
    mine = list(ordered[rank::ranks])
    steps = -(-len(ordered) // ranks)
    if len(mine) < steps:
        # A rank with nothing left repeats a pack with weight zero. It could not just wait: ZeRO-3
        # gathers each layer's parameters from all ranks, in every forward and backward pass.
        shortest = ordered[-1]
        mine.append(PackPlan(scene=shortest.scene, indices=shortest.indices, weight=0.0))
    return mine
