"""The difference of two settings by hand, against slow obvious code, and calibrated."""

import sys
from itertools import product

import numpy as np
import pytest
from scipy.stats import t as student_t

from fixtures.repository import ROOT
from threedrs.metrics.bootstrap import ratio_of_sums
from threedrs.metrics.captions import bleu_of_sums
from threedrs.metrics.setting_difference import (
    FEWEST_SEEDS,
    LEVEL,
    POWER,
    SWAPS,
    Spread,
    detectable,
    fewest_rooms,
    seeds_needed,
    smallest_p,
    spread,
    swap_p,
)

sys.path.append(str(ROOT / "benchmarks"))

from verdict import DEVIATION, Study, false_claims, found_of_missed


def sums(values_NC, questions=4):
    """Statistics of rooms with as many questions each, whose mean is the value (percent)."""
    values = np.asarray(values_NC, dtype=float)
    return np.stack([values * questions / 100, np.full_like(values, questions)], axis=-1)


def test_variances_by_hand():
    # Two rooms. Seeds of one side score 10, 20, 30 in both rooms, of the other 5, 15 and 7, 17.
    mine = sums([[10, 10], [20, 20], [30, 30]])
    other = sums([[5, 7], [15, 17]])
    found = spread(mine, other, ratio_of_sums)
    assert found.difference == pytest.approx(20 - 11)
    # Variances over seeds are 100 and 50, over 3 and 2 seeds.
    assert found.seeds_variance == pytest.approx(100 / 3 + 50 / 2)
    # Differences by room are 10 and 8, whose variance is 2, over 2 rooms.
    assert found.rooms_variance == pytest.approx(2 / 2)
    # Welch's would be (175/3)^2 / ((100/3)^2/2 + 25^2/1) = 2.88; at most 2, one less, at least 1.
    assert found.seeds_freedom == 1
    assert found.rooms_freedom == 1
    # Both have one degree of freedom, so t is the same for both.
    assert found.seeds_share == pytest.approx((175 / 3) / (175 / 3 + 1))


def test_degrees_of_freedom_by_hand():
    rng = np.random.default_rng(0)
    # Seeds that vary alike on both sides: Welch's 2 x 4, less one.
    equal = np.array([[1.0], [2], [3], [4], [5]]) + np.zeros(6)
    assert spread(sums(equal), sums(equal + 10), ratio_of_sums).seeds_freedom == pytest.approx(7)
    # One side alone varies: its own four, and not one less.
    constant = np.full((5, 6), 40.0)
    assert spread(sums(equal), sums(constant), ratio_of_sums).seeds_freedom == pytest.approx(4)
    # Eight seeds hardly make up for three: at most 2 + 1 x (3 / 8)^2.
    many = rng.normal(50, 5, (8, 6))
    least = equal[:3] / 100 + 40
    assert spread(sums(least), sums(many), ratio_of_sums).seeds_freedom == pytest.approx(2 + 9 / 64)
    # No seed differs at all.
    same = spread(sums(constant), sums(constant + 1), ratio_of_sums)
    assert (same.seeds_variance, same.seeds_freedom) == (0, 4)


def slow_rooms_variance(mine, other, combine):
    """Leave out one room after another, recompute everything, take the jackknife's variance."""
    rooms = mine.shape[1]
    found = []
    for left in range(rooms):
        kept = [room for room in range(rooms) if room != left]
        values = [
            np.mean([combine(seed[kept].sum(axis=0)[None])[0] for seed in side])
            for side in (mine, other)
        ]
        found.append(values[0] - values[1])
    return (rooms - 1) / rooms * sum((value - np.mean(found)) ** 2 for value in found)


def test_the_rooms_variance_of_bleu_equals_the_slow_loop():
    rng = np.random.default_rng(1)
    sides = [rng.integers(5, 40, (n, 7, 10)).astype(float) for n in (3, 4)]
    for side in sides:
        side[..., 4:8] += side[..., :4]  # no more matches than n-grams
    combine = bleu_of_sums(4)
    found = spread(*sides, combine)
    assert found.rooms_variance == pytest.approx(slow_rooms_variance(*sides, combine))
    values = [[combine(seed.sum(axis=0)[None])[0] for seed in side] for side in sides]
    assert found.difference == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert found.seeds_variance == pytest.approx(sum(np.var(v, ddof=1) / len(v) for v in values))


def test_leading_axes_are_studies():
    rng = np.random.default_rng(2)
    mine, other = sums(rng.normal(50, 5, (4, 3, 6))), sums(rng.normal(50, 5, (4, 5, 6)))
    together = spread(mine, other, ratio_of_sums)
    for study in range(4):
        alone = spread(mine[study], other[study], ratio_of_sums)
        assert together.p_value()[study] == pytest.approx(float(alone.p_value()))
        assert together.seeds_freedom[study] == pytest.approx(float(alone.seeds_freedom))


def made(difference, seeds, rooms):
    return Spread(
        difference=np.array(difference),
        side_variances=(np.array(seeds), np.array(0.0)),
        side_freedoms=(4, 4),
        rooms_variance=np.array(rooms),
        rooms_freedom=29,
    )


def test_interval_and_p_are_t_where_one_source_is_alone():
    seeds, rooms = made(6.0, 4.0, 0.0), made(6.0, 0.0, 4.0)
    for one, freedom in ((seeds, 4), (rooms, 29)):
        reach = student_t.ppf(0.975, freedom) * 2
        assert one.interval() == pytest.approx((6 - reach, 6 + reach))
        assert one.p_value() == pytest.approx(2 * student_t.sf(3, freedom))
    assert (float(seeds.seeds_share), float(rooms.seeds_share)) == (1, 0)


def test_both_sources_together_by_hand():
    both = made(6.0, 4.0, 1.0)
    reach = (2.776445**2 * 4 + 2.045230**2 * 1) ** 0.5  # t of 4 and of 29, from a table
    assert both.interval() == pytest.approx((6 - reach, 6 + reach), abs=1e-4)
    # The larger t of the seeds counts: their part is more than 4 of 5 parts of the variance.
    assert both.seeds_share == pytest.approx(30.834587 / (30.834587 + 4.182966), abs=1e-6)
    assert made(0.6, 0.04, 0.01).seeds_share == pytest.approx(float(both.seeds_share))
    p = float(both.p_value())
    assert both.reach(p) == pytest.approx(6)


def test_no_difference_and_no_variance():
    assert float(made(0.0, 0.0, 0.0).p_value()) == 1
    assert float(made(1e-12, 0.0, 0.0).p_value()) == 1
    assert float(made(1.0, 0.0, 0.0).p_value()) < 1e-14


def slow_swaps(mine, other, combine):
    """Swap the rooms in every way, one after another."""
    seen = abs(combine(mine.sum(axis=0)[None])[0] - combine(other.sum(axis=0)[None])[0])
    as_large = 0
    for swapped in product([False, True], repeat=len(mine)):
        a = np.array([o if s else m for m, o, s in zip(mine, other, swapped, strict=True)])
        b = np.array([m if s else o for m, o, s in zip(mine, other, swapped, strict=True)])
        found = abs(combine(a.sum(axis=0)[None])[0] - combine(b.sum(axis=0)[None])[0])
        as_large += found >= seen - 1e-9
    return as_large / 2 ** len(mine)


@pytest.mark.parametrize("rooms", [1, 2, 6, 9])
def test_swaps_equal_the_slow_loop(rooms):
    rng = np.random.default_rng(rooms)
    mine, other = rng.integers(5, 30, (2, rooms, 10)).astype(float)
    for combine in (ratio_of_sums, bleu_of_sums(4)):
        assert swap_p(mine, other, combine) == pytest.approx(slow_swaps(mine, other, combine))


def test_no_p_is_below_what_swaps_can_give():
    for rooms in (1, 2, 6, 13):
        mine, other = sums(np.full(rooms, 90.0)), sums(np.full(rooms, 10.0))
        assert swap_p(mine, other, ratio_of_sums) == smallest_p(rooms)
    assert smallest_p(6) == 2 / 64
    # Nine tests: 2 / 2^8 is 0.0078 and above 0.05 / 9, 2 / 2^9 is 0.0039 and below.
    assert fewest_rooms(LEVEL / 9) == 9
    assert fewest_rooms(LEVEL) == 6
    assert fewest_rooms(1e-9) == 14
    # With more rooms swaps are drawn, and the one seen is one of them.
    mine, other = sums(np.full(40, 90.0)), sums(np.full(40, 10.0))
    assert swap_p(mine, other, ratio_of_sums) == smallest_p(40) == 1 / (SWAPS + 1)


def test_drawn_swaps_come_close_to_all_of_them():
    rng = np.random.default_rng(4)
    mine, other = sums(rng.normal(52, 5, 14)), sums(rng.normal(50, 5, 14))
    exact = slow_swaps(mine, other, ratio_of_sums)
    assert 0.02 < exact < 0.98
    assert swap_p(mine, other, ratio_of_sums) == pytest.approx(exact, abs=0.02)


def test_seeds_needed_is_the_first_number_that_suffices():
    needed = seeds_needed(5, 4.8, LEVEL)
    assert detectable(4.8, needed, LEVEL) <= 5 < detectable(4.8, needed - 1, LEVEL)
    assert seeds_needed(100, 1, LEVEL) == FEWEST_SEEDS


@pytest.mark.parametrize("seeds", [3, 5, 12])
@pytest.mark.parametrize("level", [LEVEL, LEVEL / 9])
def test_what_is_detectable_is_found_in_four_of_five_studies(seeds, level):
    rng = np.random.default_rng(seeds)
    difference = detectable(5.0, seeds, level)
    # Rooms that are all alike, so that the seeds alone count.
    mine, other = (
        np.broadcast_to(rng.normal(mean, 5, (4000, seeds, 1)), (4000, seeds, 4))
        for mean in (50 + difference, 50)
    )
    found = spread(sums(mine), sums(other), ratio_of_sums)
    power = (np.abs(found.difference) > found.reach(level)).mean()
    assert power == pytest.approx(0.8, abs=0.05)


def test_nothing_is_missed_without_variance():
    assert made(0.0, 0.0, 0.0).missed(LEVEL) == 0


@pytest.mark.slow
@pytest.mark.parametrize("tests", [1, 9])
@pytest.mark.parametrize("kind", ["mean", "f1", "tail"])
@pytest.mark.parametrize(
    ("seeds", "deviation", "rooms"),
    [((3, 3), 1, 30), ((8, 8), 5, 30), ((3, 8), 1, 30)],
)
def test_what_is_missed_is_found_in_four_of_five_studies(seeds, deviation, rooms, kind, tests):
    study = Study(seeds=seeds, deviations=(deviation, deviation), rooms=rooms)
    missed, found = found_of_missed(kind, study, tests, 300)
    # The standard error is 2.3 %. Scores end at 0 and 100, so a difference of more than 40 points
    # on top of 45 is none that could be simulated.
    assert missed > 40 or found == pytest.approx(POWER, abs=0.08)


@pytest.mark.parametrize("level", [LEVEL, LEVEL / 9])
@pytest.mark.parametrize(
    ("seeds", "ratio"), [((3, 3), 20), ((3, 4), 20), ((3, 8), 7), ((4, 8), 5), ((5, 8), 3)]
)
def test_seeds_alone_that_vary_unlike_make_no_difference(seeds, ratio, level):
    """Rooms that are all alike, and of two sides the one with fewer seeds varies more."""
    rng, studies = np.random.default_rng(seeds[1]), 300_000
    deviations = ratio, 1
    variances = tuple(
        deviation**2 / count * rng.chisquare(count - 1, studies) / (count - 1)
        for count, deviation in zip(seeds, deviations, strict=True)
    )
    error = np.sqrt(sum(d**2 / n for n, d in zip(seeds, deviations, strict=True)))
    found = Spread(
        difference=rng.normal(0, error, studies),
        side_variances=variances,
        side_freedoms=(seeds[0] - 1, seeds[1] - 1),
        rooms_variance=np.zeros(studies),
        rooms_freedom=29,
    )
    # Three standard errors of the simulation; at 0.0056 it is 2.4 % of the level itself.
    error_of_level = np.sqrt(level / studies)
    assert (np.abs(found.difference) > found.reach(level)).mean() < level + 3 * error_of_level


@pytest.mark.parametrize(
    "seeds", [(1, 1), (2, 2), (3, 3), (5, 5), (8, 8), (3, 8)], ids=lambda seeds: f"{seeds}"
)
@pytest.mark.parametrize(
    "rooms", [6, 30, *(pytest.param(rooms, marks=pytest.mark.slow) for rooms in (141, 312))]
)
def test_without_a_difference_at_most_one_study_in_twenty_claims_one(seeds, rooms):
    # 300 studies a size: the standard error is 1.3 % at most. The true rates are below 3.5 %
    # (docs/EVALUATION.md), so 5 % is asked for as it stands.
    study = Study(seeds=seeds, deviations=(DEVIATION, DEVIATION), rooms=rooms)
    assert false_claims(study, 300) <= LEVEL
