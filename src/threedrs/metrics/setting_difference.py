"""The difference of two settings of a training, whose scores vary with the seed and with the rooms.

A setting is a recipe without its seed. It has been trained with several seeds, and every training
answered the same questions in the same rooms. Two things make the difference of two settings come
out otherwise in another study:

- seeds: the variance of each side's scores over its seeds, divided by their number, and both sides
  added. One training has no variance to estimate, so nothing is said of it.
- rooms: what the absence of one room at a time does to the difference of the means over seeds (the
  delete-one jackknife). Both sides saw the same rooms, so what makes a room hard for both cancels.
  It holds part of the luck of the seeds too, that which differs from room to room. It is not taken
  out again, so the interval is rather too wide than too narrow.

The interval reaches as far as the root of t_seeds^2 x V_seeds + t_rooms^2 x V_rooms to either side,
each variance with the t quantile of its own degrees of freedom (Banerjee, 1960). Degrees of freedom
of both variances together would be wrong: where few seeds happen to lie close, the many rooms would
lend them a certainty that nobody has. Those of the seeds are Welch's and Satterthwaite's, less one
and within bounds (`Spread.seeds_freedom`).

p is the larger of two: the level at which that interval ends at zero, and the p of a test that
swaps the two sides within rooms. However alike C rooms are, the latter cannot fall below 2 / 2^C,
or 1 / (R + 1) where swaps are drawn. So a difference has to hold against the seeds and the rooms.

Axis letters: N trainings of a side, C rooms, S statistics (``bootstrap.Metric``), R swaps. Leading
axes, as of simulated studies, are kept. Cost: some milliseconds a metric.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

# Not scipy.stats: its import takes a second, and these are the functions behind its quantiles.
from scipy.special import gammaincinv, ndtr, stdtrit

FEWEST_SEEDS = 3
LEVEL = 0.05
POWER = 0.8
SWAPS = 9_999
# With at most so many rooms all swaps are tried: 4,096, fewer than would be drawn.
_FEW_ROOMS = 13
_SEED = 20250606
# Likely estimates of each side's variance and of the rooms', tried for what a study can find.
_ESTIMATES = (32, 32, 8)
_MOST_SEEDS = 1_000_000
# Sums in another order differ in the last digits, which is not a difference of the settings.
_TOLERANCE = 1e-9

Combine = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """A difference of two settings and what it varies with; arrays of the leading axes' shape."""

    # Mean over the seeds of one side minus that of the other, percentage points.
    difference: np.ndarray
    # Of each side, the variance of the mean over its seeds, points squared, and its degrees of
    # freedom.
    side_variances: tuple[np.ndarray, np.ndarray]
    side_freedoms: tuple[int, int]
    # Variance of the difference that comes from the rooms, points squared.
    rooms_variance: np.ndarray
    rooms_freedom: int  # degrees of freedom of ``rooms_variance``

    @property
    def seeds_variance(self) -> np.ndarray:
        """The variance of the difference that comes from the seeds, points squared."""
        return self.side_variances[0] + self.side_variances[1]

    @property
    def seeds_freedom(self) -> np.ndarray:
        """The degrees of freedom of ``seeds_variance``."""
        variances, freedoms = self.side_variances, self.side_freedoms
        squares = variances[0] ** 2 / freedoms[0] + variances[1] ** 2 / freedoms[1]
        fewest, most = min(freedoms), max(freedoms)
        # Where no seed differs from another there is nothing to weigh, and the least is taken.
        least = np.full_like(squares, fewest)
        welch = np.divide(self.seeds_variance**2, squares, out=least, where=squares > 0)
        # At 3 seeds and the level that nine metrics ask for, Welch's test says "different" too
        # often. One less mends it where both sides have as many seeds. Where they do not, the side
        # with fewer may be the one that varies, which its few seeds hide. Then Welch's formula
        # trusts the many seeds of the other side, that say nothing about it, so they count for
        # little.
        likeness = (fewest + 1) / (most + 1)
        return np.clip(welch - 1, fewest, fewest + (fewest - 1) * likeness**2)

    @property
    def seeds_share(self) -> np.ndarray:
        """The fraction of the 95 % interval's squared reach that is the seeds'; 0 without any."""
        seeds, total = self._squared_reaches(LEVEL)[0], self.reach() ** 2
        return np.divide(seeds, total, out=np.zeros_like(total), where=total > 0)

    def reach(self, level: float | np.ndarray = LEVEL) -> np.ndarray:
        """Return half the width of the interval that misses a fraction ``level``, points."""
        return np.sqrt(sum(self._squared_reaches(level)))

    def _squared_reaches(self, level: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the squared reaches of the seeds and of the rooms alone, points squared."""
        tail = np.divide(level, 2)
        seeds = stdtrit(self.seeds_freedom, tail) ** 2 * self.seeds_variance
        rooms = stdtrit(self.rooms_freedom, tail) ** 2 * self.rooms_variance
        return seeds, rooms

    def interval(self) -> tuple[float, float]:
        """Return both ends of the 95 % interval of one difference, points."""
        reach = float(self.reach())
        return float(self.difference) - reach, float(self.difference) + reach

    def missed(self, level: float) -> float:
        """Return the true difference that such studies find with power `POWER`, points.

        Such studies have the variances of this one, and estimate them anew.
        """
        variances = *self.side_variances, self.rooms_variance
        error = float(np.sqrt(sum(variances)))
        if error == 0:
            return 0.0
        # Another study sees other variances, and with them other degrees of freedom. All triples
        # of likely estimates are tried. A mean estimate would not do: where three seeds happen to
        # lie far apart, the quantile that goes with them is larger as well.
        freedoms = *self.side_freedoms, self.rooms_freedom
        estimates = [
            variance * _relative_variances(freedom, count)
            for variance, freedom, count in zip(variances, freedoms, _ESTIMATES, strict=True)
        ]
        mine, other, rooms = np.meshgrid(*estimates, indexing="ij", sparse=True)
        seen = replace(self, side_variances=(mine, other), rooms_variance=rooms)
        return error * _errors_to_find(seen.reach(level) / error)

    def p_value(self) -> np.ndarray:
        """Return the level at which the interval ends at zero; 1 without a difference."""
        size = np.abs(self.difference)
        low, high = np.zeros_like(size), np.ones_like(size)
        # The reach falls as the level rises, so 50 halvings find the level to 15 digits.
        for _ in range(50):
            middle = (low + high) / 2
            beyond = size > self.reach(middle)
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        return np.where(size < _TOLERANCE, 1.0, high)


def spread(mine_NCS: np.ndarray, other_NCS: np.ndarray, combine: Combine) -> Spread:
    """Return the difference of two settings and its variances.

    Args:
        mine_NCS: (..., N, C, S) statistics of the trainings of one side, summed over each room;
            N >= 2, C >= 2.
        other_NCS: the same of the other side, of the same rooms; its N may differ.
        combine: sums (R, S) to values (R,), percent.
    """
    rooms = mine_NCS.shape[-2]
    sides = (mine_NCS, other_NCS)
    mine, other = (_combined(side.sum(axis=-2), combine) for side in sides)
    freedoms = mine.shape[-1] - 1, other.shape[-1] - 1
    variances = (
        mine.var(axis=-1, ddof=1) / mine.shape[-1],
        other.var(axis=-1, ddof=1) / other.shape[-1],
    )
    return Spread(
        difference=mine.mean(axis=-1) - other.mean(axis=-1),
        side_variances=variances,
        side_freedoms=freedoms,
        rooms_variance=_rooms_variance(sides, combine),
        rooms_freedom=rooms - 1,
    )


def paired_spread(mine_NCS: np.ndarray, other_NCS: np.ndarray, combine: Combine) -> Spread:
    """Return the difference of two ways to ask the same trainings, and its variances.

    Both sides are statistics of N >= 1 trainings, summed over each of C >= 2 rooms; see `spread`.
    """
    seeds, rooms = mine_NCS.shape[:2]
    sides = (mine_NCS, other_NCS)
    mine_N, other_N = (_combined(side.sum(axis=-2), combine) for side in sides)
    # What makes one training better than another in both ways cancels. One training alone has no
    # such variance, and the interval is then of the rooms and of that training.
    apart_N = mine_N - other_N
    seeds_variance = apart_N.var(ddof=1) / seeds if seeds > 1 else np.array(0.0)
    return Spread(
        difference=apart_N.mean(),
        side_variances=(seeds_variance, np.array(0.0)),
        side_freedoms=(max(1, seeds - 1),) * 2,
        rooms_variance=_rooms_variance(sides, combine),
        rooms_freedom=rooms - 1,
    )


def _rooms_variance(sides: tuple[np.ndarray, np.ndarray], combine: Combine) -> np.ndarray:
    """Return the jackknife's variance of the difference of both sides' means over the seeds."""
    without_mine_C, without_other_C = (
        _combined(side.sum(axis=-2, keepdims=True) - side, combine).mean(axis=-2) for side in sides
    )
    rooms = sides[0].shape[-2]
    return (rooms - 1) * (without_mine_C - without_other_C).var(axis=-1)


def _combined(sums: np.ndarray, combine: Combine) -> np.ndarray:
    """Return ``combine`` over the last axis of an array of any shape."""
    return combine(sums.reshape(-1, sums.shape[-1])).reshape(sums.shape[:-1])


def smallest_p(rooms: int) -> float:
    """Return the smallest p that a swap of two sides within ``rooms`` rooms can give."""
    return 2.0 ** (1 - rooms) if rooms <= _FEW_ROOMS else 1 / (SWAPS + 1)


def fewest_rooms(level: float) -> int:
    """Return how many rooms it takes for a swap within rooms to give a p below ``level``."""
    # Where swaps are drawn, more rooms give no smaller p.
    most = _FEW_ROOMS + 1
    return next((rooms for rooms in range(1, most) if smallest_p(rooms) < level), most)


def swap_p(mine_CS: np.ndarray, other_CS: np.ndarray, combine: Combine) -> float:
    """Return the two-sided p of the test that swaps the two sides within rooms.

    If the settings do not differ, either could have given either's answers in a room. p is the
    fraction of swaps with a difference at least as large as the one seen. All swaps are tried for
    few rooms. Otherwise `SWAPS` are drawn. Both sides are statistics (C, S), summed over each room
    and the mean over a side's trainings; see `spread`.
    """
    swapped_RC = _swaps(len(mine_CS))
    mine_S, other_S = mine_CS.sum(axis=0), other_CS.sum(axis=0)
    moved_RS = swapped_RC @ (other_CS - mine_CS)
    drawn_R = np.abs(combine(mine_S + moved_RS) - combine(other_S - moved_RS))
    seen = np.abs(combine(mine_S[None]) - combine(other_S[None]))
    as_large = int((drawn_R >= seen - _TOLERANCE).sum())
    # Where swaps were drawn, the one seen counts as drawn too.
    seen_too = int(len(mine_CS) > _FEW_ROOMS)
    return (as_large + seen_too) / (len(drawn_R) + seen_too)


@lru_cache(maxsize=1)
def _swaps(rooms: int) -> np.ndarray:
    """Return which rooms each swap swaps, (R, C) float64 of 0 and 1."""
    if rooms > _FEW_ROOMS:
        drawn = np.random.default_rng(_SEED).integers(0, 2, (SWAPS, rooms), dtype=np.int8)
        return drawn.astype(np.float64)
    # A swap and its opposite differ in sign alone, so the last room is never swapped.
    return (np.arange(2 ** (rooms - 1))[:, None] >> np.arange(rooms) & 1).astype(np.float64)


def _errors_to_find(needed: np.ndarray) -> float:
    """Return the true difference that passes the bounds ``needed``, all as likely, with `POWER`.

    Both are in true standard errors of the difference.
    """
    from scipy.optimize import brentq  # takes half a second, and most reports ask for no power

    return float(brentq(lambda size: ndtr(size - needed).mean() - POWER, 0, needed.max() + 9))


def _relative_variances(freedom: float, count: int) -> np.ndarray:
    """Return estimates of a variance of 1, all as likely."""
    # Of chi-squared, which is twice a gamma variable of half as many degrees of freedom.
    return 2 * gammaincinv(freedom / 2, (np.arange(count) + 0.5) / count) / freedom


def detectable(deviation: float, seeds: int, level: float) -> float:
    """Return the true difference that so many seeds a side find with power `POWER`, points.

    ``deviation`` is that of a setting's score over its seeds, in points, and ``level`` that of the
    test after a correction for several. The rooms come on top: no number of rooms makes it smaller.
    """
    variance = np.array(deviation**2 / seeds)
    alike = Spread(
        difference=np.array(0.0),
        side_variances=(variance, variance),
        side_freedoms=(seeds - 1, seeds - 1),
        rooms_variance=np.array(0.0),
        rooms_freedom=1,
    )
    return alike.missed(level)


def seeds_needed(points: float, deviation: float, level: float) -> int:
    """Return how many seeds each of two settings needs to find a true difference.

    At least 3, and at most a million, which stands for more too. ``points`` is the difference; the
    others are as `detectable` takes them.
    """
    numbers = range(FEWEST_SEEDS, _MOST_SEEDS + 1)
    place = bisect_left(numbers, -points, key=lambda seeds: -detectable(deviation, seeds, level))
    return numbers[min(place, len(numbers) - 1)]
