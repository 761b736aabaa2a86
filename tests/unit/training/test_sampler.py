"""The order of samples: properties that hold for any mix, packing and number of ranks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threedrs.training.recipe import TrainSettings
from threedrs.training.sampler import (
    PackPlan,
    micro_steps,
    plan_batches,
    plan_task_groups,
    sample_count,
)

MIXES = st.lists(st.sampled_from(["scene0000_00", "scene0001_00", "scene0002_01"]), min_size=1)
SIZES = st.integers(min_value=1, max_value=9)


def mixed_steps(samples, global_batch, drop_last=False):
    recipe = TrainSettings(batches="mixed", global_batch=global_batch, drop_last=drop_last)
    return recipe.steps_per_epoch({"questions": samples})


def group_steps(groups, global_batch):
    recipe = TrainSettings(batches="task_groups", global_batch=global_batch)
    return recipe.steps_per_epoch(Counter(groups))


def plan(scenes, *, pack=2, global_batch=4, drop_last=False, seed=7, epoch=0):
    return plan_batches(
        scenes, pack=pack, global_batch=global_batch, drop_last=drop_last, seed=seed, epoch=epoch
    )


@settings(max_examples=60)
@given(scenes=MIXES, pack=SIZES, packs=SIZES, seed=SIZES)
def test_every_sample_once_an_epoch_in_exact_batches_of_unmixed_packs(scenes, pack, packs, seed):
    global_batch = pack * packs
    batches = plan(scenes, pack=pack, global_batch=global_batch, seed=seed)

    seen = Counter(index for batch in batches for p in batch for index in p.indices)
    assert seen == Counter(range(len(scenes)))
    assert all(sample_count(batch) == global_batch for batch in batches[:-1])
    assert 1 <= sample_count(batches[-1]) <= global_batch
    for batch in batches:
        for p in batch:
            assert 1 <= len(p.indices) <= pack
            assert {scenes[index] for index in p.indices} == {p.scene}
    assert len(batches) == mixed_steps(len(scenes), global_batch)


@settings(max_examples=60)
@given(scenes=MIXES, pack=SIZES, packs=SIZES, ranks=SIZES)
def test_ranks_share_out_each_batch_in_equally_many_micro_steps(scenes, pack, packs, ranks):
    for batch in plan(scenes, pack=pack, global_batch=pack * packs):
        shares = [micro_steps(batch, rank, ranks) for rank in range(ranks)]
        real = [p for share in shares for p in share if p.weight > 0]
        assert len({len(share) for share in shares}) == 1
        assert Counter(real) == Counter(batch)
        assert all(p.weight == 0 and p.indices for share in shares for p in share if p not in real)


def test_order_depends_on_seed_and_epoch_only():
    scenes = [f"scene{index % 5:04d}_00" for index in range(50)]

    assert plan(scenes) == plan(scenes)
    assert plan(scenes) != plan(scenes, epoch=1)
    assert plan(scenes) != plan(scenes, seed=8)


def test_one_sample_packs_are_a_plain_shuffle():
    scenes = ["scene0000_00"] * 20 + ["scene0001_00"] * 20
    packs = [p for batch in plan(scenes, pack=1, global_batch=8) for p in batch]

    order = [index for p in packs for index in p.indices]
    assert sorted(order) == list(range(40))
    assert order != sorted(order)
    first_half = [p.scene for p in packs[:20]]
    assert 0 < first_half.count("scene0000_00") < 20


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=6),
    pack=SIZES,
    packs=SIZES,
)
def test_full_packs_are_not_split_by_what_is_left_of_the_scenes(counts, pack, packs):
    scenes = [f"scene{number:04d}_00" for number, count in enumerate(counts) for _ in range(count)]
    batches = plan(scenes, pack=pack, global_batch=pack * packs)

    full = sum(count // pack for count in counts)
    unsplit = [batch for batch in batches if len(batch) == packs == sample_count(batch) / pack]
    assert len(unsplit) >= full // packs


def test_what_is_left_of_the_scenes_fills_batches_of_its_own_anywhere_in_the_epoch():
    scenes = [f"scene{number:04d}_00" for number in range(4) for _ in range(11)]
    orders = [
        [[len(p.indices) for p in batch] for batch in plan(scenes, pack=4, seed=seed)]
        for seed in range(20)
    ]
    for sizes in orders:  # of each scene 4, 4 and 3
        assert sizes.count([4]) == 8
        assert sorted(size for size in sizes if size != [4]) == [[1, 3], [2, 2], [3, 1]]
    assert len({sizes.index([3, 1]) for sizes in orders}) > 3


def test_pack_that_straddles_a_boundary_is_split():
    scenes = ["scene0000_00"] * 3 + ["scene0001_00"] * 3
    batches = plan(scenes, pack=4, global_batch=4)

    assert [[len(p.indices) for p in batch] for batch in batches] == [[3, 1], [2]]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_last_short_batch(drop_last, sizes):
    batches = plan(["scene0000_00"] * 10, drop_last=drop_last)

    assert [sample_count(batch) for batch in batches] == sizes
    assert mixed_steps(10, 4, drop_last) == len(sizes)


def test_rank_without_a_pack_repeats_the_shortest_with_weight_zero():
    batch = tuple(
        PackPlan(scene="scene0000_00", indices=indices) for indices in [(0,), (1, 2), (3, 4, 5)]
    )

    assert [p.indices for p in micro_steps(batch, 0, 2)] == [(3, 4, 5), (0,)]
    assert micro_steps(batch, 1, 2) == [
        batch[1],
        PackPlan(scene="scene0000_00", indices=(0,), weight=0.0),
    ]
    assert sample_count(batch) == 6


GROUPS = ["questions", "captions", "grounding"]


def plan_groups(scenes, groups, words=None, *, pack=1, global_batch=4, seed=7, epoch=0):
    return plan_task_groups(
        scenes,
        groups,
        words or [0] * len(scenes),
        pack=pack,
        global_batch=global_batch,
        seed=seed,
        epoch=epoch,
    )


@pytest.mark.slow
def test_the_published_steps_of_the_full_counts():
    """6,622 + 2,291 + 5,031 steps of 16 samples from 26,515 + 79,445, 36,665, 36,665 + 43,838."""
    sizes = dict(zip(GROUPS, (26_515 + 79_445, 36_665, 36_665 + 43_838), strict=True))
    groups = [group for group, size in sizes.items() for _ in range(size)]
    assert len(groups) == 223_128
    assert group_steps(groups, 16) == 13_944 == 6_622 + 2_291 + 5_031
    scenes = [f"scene{index % 562:04d}_00" for index in range(len(groups))]
    batches = plan_groups(scenes, groups, global_batch=16)
    assert Counter(groups[batch[0].indices[0]] for batch in batches) == dict(
        zip(GROUPS, (6_622, 2_291, 5_031), strict=True)
    )
    assert sum(map(sample_count, batches)) == 223_104


@settings(max_examples=60)
@given(
    samples=st.lists(
        st.tuples(
            st.sampled_from(GROUPS),
            st.sampled_from(["scene0000_00", "scene0001_00", "scene0002_01"]),
            st.integers(min_value=1, max_value=30),
        ),
        min_size=1,
        max_size=60,
    ),
    pack=SIZES,
    packs=SIZES,
    seed=SIZES,
)
def test_a_step_holds_one_group_sorted_and_each_groups_last_run_is_dropped(
    samples, pack, packs, seed
):
    groups, scenes, words = (list(part) for part in zip(*samples, strict=True))
    size = pack * packs
    batches = plan_groups(scenes, groups, words, pack=pack, global_batch=size, seed=seed)

    assert len(batches) == group_steps(groups, size)
    seen = [index for batch in batches for p in batch for index in p.indices]
    assert len(seen) == len(set(seen))
    for group in GROUPS:
        count = groups.count(group)
        runs = [count for batch in batches if groups[batch[0].indices[0]] == group]
        # Cut into runs, of which the last may be short, and one fewer is taken.
        assert len(runs) == max(0, len(range(0, count, size)) - 1)
    for batch in batches:
        assert sample_count(batch) == size
        assert len({groups[index] for p in batch for index in p.indices}) == 1
        assert all(len({scenes[index] for index in p.indices}) == 1 for p in batch)
        assert all(len(p.indices) <= pack for p in batch)
        lengths = [sum(words[index] for index in p.indices) for p in batch]
        assert lengths == sorted(lengths, reverse=True)
    alone = plan_groups(scenes, groups, words, pack=1, global_batch=size, seed=seed)
    assert sorted(seen) == sorted(index for batch in alone for p in batch for index in p.indices)


def test_the_longest_texts_of_a_step_run_beside_each_other():
    words = [3, 9, 4, 8, 1, 7, 2, 6, 5]
    (batch,) = plan_groups(["scene0000_00"] * 9, ["captions"] * 9, words, global_batch=8)
    ranks = [micro_steps(batch, rank, 4) for rank in range(4)]
    first, second = ([words[steps[turn].indices[0]] for steps in ranks] for turn in (0, 1))
    assert min(first) > max(second)


def test_the_order_of_task_groups_depends_on_seed_and_epoch_and_is_shuffled():
    scenes = [f"scene{index % 5:04d}_00" for index in range(120)]
    groups = [GROUPS[index * 3 // 120] for index in range(120)]
    assert plan_groups(scenes, groups) == plan_groups(scenes, groups)
    assert plan_groups(scenes, groups) != plan_groups(scenes, groups, epoch=1)
    assert plan_groups(scenes, groups) != plan_groups(scenes, groups, seed=8)
    order = [groups[batch[0].indices[0]] for batch in plan_groups(scenes, groups)]
    assert Counter(order) == dict.fromkeys(GROUPS, 9)
    assert order != sorted(order)
