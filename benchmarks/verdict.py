"""How often the verdict sees a difference that is not there, and how many seeds find one that is.

    python benchmarks/verdict.py [--studies 3000] [--rooms 6 30 141 312]

prints the tables of docs/EVALUATION.md, of false claims the columns of the given numbers of rooms.
A study has two settings that do not differ, each trained with several seeds and asked the same
questions in the same rooms. Nine metrics are judged as the report judges them (Holm over nine,
level 5 %). They are independent of each other here, which is the hardest case for "none of nine".

A question's score depends on the room (standard deviation 10 points), on the training (the seeds'
deviation), on the setting and the training within the room (5 points each) and on chance. A room
has 5 to 59 questions. The nine metrics are of three kinds, as in the report:

- means of right and wrong answers (ScanRefer, exact match)
- F1, with values between the two (Multi3DRefer)
- sums with a long tail, as of CIDEr: most answers score near 0, a few very much
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from threedrs.metrics.bootstrap import ratio_of_sums
from threedrs.metrics.setting_difference import (
    FEWEST_SEEDS,
    LEVEL,
    seeds_needed,
    spread,
    swap_p,
)
from threedrs.planning.stage_costs import figure

SEEDS = (1, 2, 3, 5, 8)
ROOMS = (6, 30, 141, 312)
KINDS = ("mean", "mean", "f1", "f1", "tail", "tail", "tail", "mean", "mean")
# Seeds of the two sides and their deviations in points, other than the usual equal ones.
UNEQUAL = (
    ((3, 8), (5.0, 5.0)),
    ((3, 3), (1.0, 1.0)),
    ((3, 3), (7.0, 1.5)),
    ((3, 8), (7.0, 1.5)),
    ((5, 8), (7.0, 1.5)),
    ((3, 8), (1.5, 7.0)),
)
DEVIATION = 5.0
ROOM_DEVIATION, WITHIN_DEVIATION = 0.10, 0.05
POINTS = (1, 2, 5, 10, 20)
BLOCK = 1000


@dataclass(frozen=True, kw_only=True)
class Study:
    """The size of a study, and how much its trainings vary.

    Attributes:
        seeds: of either side.
        deviations: of a side's scores over its seeds, points.
        rooms: C.
    """

    seeds: tuple[int, int]
    deviations: tuple[float, float]
    rooms: int


def simulate(
    kind: str, study: Study, studies: int, draw: np.random.Generator, difference: float = 0.0
) -> list[np.ndarray]:
    """Return the sums of both sides, (studies, N, C, 2) each.

    The first side is better by ``difference`` percentage points.
    """
    size = studies, 1, study.rooms
    room_X1C = draw.normal(0.45, ROOM_DEVIATION, size)
    questions_X1C = draw.integers(5, 60, size)
    sides = []
    better = difference / 100, 0.0
    for seeds, deviation, more in zip(study.seeds, study.deviations, better, strict=True):
        share_XNC = room_X1C + more + draw.normal(0, WITHIN_DEVIATION, size)
        share_XNC = share_XNC + draw.normal(0, deviation / 100, (studies, seeds, 1))
        share_XNC += draw.normal(0, WITHIN_DEVIATION, share_XNC.shape)
        share_XNC = share_XNC.clip(0.001, 0.999)
        questions_XNC = np.broadcast_to(questions_X1C, share_XNC.shape)
        if kind == "mean":
            sums_XNC = draw.binomial(questions_XNC, share_XNC).astype(float)
        elif kind == "f1":
            sums_XNC = draw.binomial(3 * questions_XNC, share_XNC) / 3
        else:
            # A sum of gamma values is one gamma value; shape 0.1 leaves most answers near 0.
            sums_XNC = draw.gamma(0.1 * questions_XNC, 10 * share_XNC)
        sides.append(np.stack([sums_XNC, questions_XNC], axis=-1))
    return sides


def claims(sides: list[np.ndarray], tests: int) -> np.ndarray:
    """Return which studies (X,) call the first side better or worse, as one metric of ``tests``."""
    mine, other = sides
    found = spread(mine, other, ratio_of_sums)
    # Holm's first step decides whether there is any claim, and swaps only raise a p. So they are
    # tried where seeds and rooms together leave one.
    claimed_X = np.abs(found.difference) > found.reach(LEVEL / tests)
    for index in np.flatnonzero(claimed_X):
        p = swap_p(mine[index].mean(axis=0), other[index].mean(axis=0), ratio_of_sums)
        claimed_X[index] = p * tests < LEVEL
    return claimed_X


def false_claims(study: Study, studies: int, seed: int = 0) -> float:
    """Return the fraction of ``studies`` that call any of nine metrics better or worse."""
    if min(study.seeds) < FEWEST_SEEDS:
        return 0.0  # there is no p then
    draw = np.random.default_rng(seed)
    claimed = 0
    for start in range(0, studies, BLOCK):
        count = min(BLOCK, studies - start)
        each = [claims(simulate(kind, study, count, draw), len(KINDS)) for kind in KINDS]
        claimed += int(np.any(each, axis=0).sum())
    return claimed / studies


def found_of_missed(
    kind: str, study: Study, tests: int, studies: int, seed: int = 0
) -> tuple[float, float]:
    """Return what a study says that it could have missed, and how many find a difference so large.

    The variances are the mean ones of studies with that difference, which one study only estimates.
    """
    draw = np.random.default_rng(seed)
    missed = 0.0
    # Variances depend on the scores, so the difference and they are found in turn.
    for _ in range(3):
        mine, other = simulate(kind, study, 1000, draw, missed)
        seen = spread(mine, other, ratio_of_sums)
        typical = replace(
            seen,
            side_variances=tuple(variance.mean() for variance in seen.side_variances),
            rooms_variance=seen.rooms_variance.mean(),
        )
        missed = typical.missed(LEVEL / tests)
    found = claims(simulate(kind, study, studies, draw, missed), tests)
    return missed, float(found.mean())


def claims_table(studies: int, numbers: Sequence[int]) -> str:
    """Return the percent of studies with a false claim, a row for each number of seeds."""
    rows = [["seeds", "vary by, points", *(f"{rooms} rooms" for rooms in numbers)]]
    rows.append(["---"] * len(rows[0]))
    usual = [((seeds, seeds), (DEVIATION, DEVIATION)) for seeds in SEEDS]
    for seeds, deviations in (*usual, *UNEQUAL):
        shares = [
            false_claims(Study(seeds=seeds, deviations=deviations, rooms=rooms), studies)
            for rooms in numbers
        ]
        sides = f"{seeds[0]} and {seeds[1]}", f"{deviations[0]:g} and {deviations[1]:g}"
        rows.append([*sides, *(f"{100 * share:.1f}" for share in shares)])
    error = 100 * np.sqrt(LEVEL * (1 - LEVEL) / studies)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{studies:,} studies a cell, standard error at most {error:.2f} (at 5 %)."


def seeds_table() -> str:
    """Return how many seeds a side find a difference on ScanRefer, a row for each difference."""
    deviation = figure("seeds, points of ScanRefer Acc@0.25")
    rows = [["true difference, points", "one metric", "nine metrics"], ["---"] * 3]
    for points in POINTS:
        needed = [seeds_needed(points, deviation, LEVEL / tests) for tests in (1, len(KINDS))]
        rows.append([str(points), *map(str, needed)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=3_000)
    parser.add_argument("--rooms", type=int, nargs="+", default=ROOMS)
    arguments = parser.parse_args()
    print(seeds_table())
    print()
    print(claims_table(arguments.studies, arguments.rooms))


if __name__ == "__main__":
    main()
