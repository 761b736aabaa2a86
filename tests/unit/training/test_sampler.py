"""The order of samples: properties that hold for any mix, packing and number of ranks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threedrs.training.sampler import (
    PackPlan,
    batches_per_epoch,
    micro_steps,
    plan_batches,
    sample_count,
)

MIXES = st.lists(st.sampled_from(["scene0000_00", "scene0001_00", "scene0002_01"]), min_size=1)
SIZES = st.integers(min_value=1, max_value=9)


def plan(scenes, *, pack=2, global_batch=4, drop_last=False, seed=7, epoch=0):
    return plan_batches(
        scenes, pack=pack, global_batch=global_batch, drop_last=drop_last, seed=seed, epoch=epoch
    )


@settings(max_examples=60, deadline=None)
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
    assert len(batches) == batches_per_epoch(len(scenes), global_batch, drop_last=False)


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=60, deadline=None)
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
    assert batches_per_epoch(10, 4, drop_last) == len(sizes)


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
