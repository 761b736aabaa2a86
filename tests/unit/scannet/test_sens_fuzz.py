"""6,000 damaged .sens files: each ends in SensError or in frames as announced, memory bounded."""

import tracemalloc

import numpy as np
import pytest

from fixtures.sens_fuzz import STREAMS, Tally, check_case, mutated, run_cases

CASES = 3000  # of a seed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_six_thousand_damaged_files(tmp_path, seed):
    tally = run_cases(tmp_path / "fuzz.sens", CASES, seed)
    assert tally.cases == CASES
    # The mutator reaches both outcomes and many of the reader's checks.
    assert tally.refused > 0.6 * CASES
    assert tally.frames > 0.06 * CASES
    assert len(tally.reasons) > 25


def test_the_unchanged_streams_are_read(tmp_path):
    tally = Tally()
    tracemalloc.start()
    for data in STREAMS:
        check_case(tmp_path / "valid.sens", data, tally)
    tracemalloc.stop()
    assert (tally.refused, tally.frames) == (0, 6)


def test_a_seed_gives_the_same_cases():
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    cases = [mutated(first) for _ in range(200)]
    assert cases == [mutated(second) for _ in range(200)]
    assert len(set(cases)) > 190
