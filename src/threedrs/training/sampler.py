"""The order of samples: which packs make which optimizer step, and which rank runs which pack.

A pack is up to K samples of one scene that share a sequence. The samples of a scene are shuffled
and cut into packs of K, and what is left makes a smaller pack. Batches hold exactly
``global_batch`` samples. Most batches consist of full packs, none of which is split. The others
consist of small packs, where a pack that straddles a boundary is split. So every sample is seen
once an epoch, and a batch mixes scenes and benchmarks. With K = 1 the order is a plain shuffle, the
usual recipe; with K > 1 a batch holds fewer scenes.

Task groups are the published order: a batch holds questions, captions or grounding alone, its
longest texts come first, and the last batch of each group is dropped, full or not. Packs of K > 1
are made within a group, of the same samples that K = 1 would take.

The order depends on seed and epoch only. The ranks divide the packs of a batch afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """Samples of one scene that share a sequence."""

    scene: str  # their scene
    indices: tuple[int, ...]  # their indices in the mix
    weight: float = 1.0  # 1, or 0 for a repeat that only keeps a rank in step with the others


Batch = tuple[PackPlan, ...]


def _plan_packs(
    scenes: Sequence[str], chosen: np.ndarray, pack: int, generator: np.random.Generator
) -> list[PackPlan]:
    """Return packs of at most ``pack`` of the ``chosen`` samples, in random order, full first."""
    # One shuffle of all samples shuffles each scene's, and spreads its benchmarks over its packs.
    samples_of_scene: dict[str, list[int]] = {}
    for index in generator.permutation(chosen):
        samples_of_scene.setdefault(scenes[index], []).append(int(index))
    packs = [
        PackPlan(scene=scene, indices=tuple(indices[start : start + pack]))
        for scene, indices in samples_of_scene.items()
        for start in range(0, len(indices), pack)
    ]
    # Full ones come first so that they fill whole batches, where K divides the batch.
    shuffled = [packs[position] for position in generator.permutation(len(packs))]
    return sorted(shuffled, key=lambda plan: len(plan.indices) < pack)


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

    The last batch may hold fewer samples; with ``drop_last`` it is left out. ``scenes`` has the
    scene of each sample, ``pack`` is K, and ``epoch`` counts from 0.
    """
    generator = np.random.default_rng([seed, epoch])
    packs = _plan_packs(scenes, np.arange(len(scenes)), pack, generator)
    batches = _cut(packs, global_batch)
    # A short batch comes last, wherever the small packs go: a resumed run and the learning rates
    # count whole batches.
    last = [batches.pop()] if batches and sample_count(batches[-1]) < global_batch else []
    mixed = [batches[position] for position in generator.permutation(len(batches))]
    return mixed if drop_last else mixed + last


def plan_task_groups(
    scenes: Sequence[str],
    groups: Sequence[str],
    words: Sequence[int],
    *,
    pack: int,
    global_batch: int,
    seed: int,
    epoch: int,
) -> list[Batch]:
    """Return an epoch's batches of exactly ``global_batch`` samples of one task group, in order.

    ``groups`` has the task group of each sample, and ``words`` the words of its question and
    answer; the rest as in `plan_batches`.
    """
    generator = np.random.default_rng([seed, epoch])
    # Which samples are dropped is decided before any pack is made, so that K does not matter.
    members = [
        generator.permutation(np.flatnonzero(np.array(groups) == group))
        for group in sorted(set(groups))
    ]
    batches: list[Batch] = []
    for chosen in members:
        kept = chosen[: global_batch * group_steps(len(chosen), global_batch)]
        batches += _cut(_plan_packs(scenes, kept, pack, generator), global_batch)
    # A rank takes every so-many-th pack: with K = 1 the longest texts run beside each other.
    sized = [
        sorted(batch, key=lambda plan: -sum(words[index] for index in plan.indices))
        for batch in batches
    ]
    return [tuple(sized[position]) for position in generator.permutation(len(sized))]


def group_steps(samples: int, global_batch: int) -> int:
    """Return the steps of an epoch from the samples of one task group."""
    # The last one is dropped, full or not, as published.
    return max(0, -(-samples // global_batch) - 1)


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
