"""Runs against a baseline, question by question: the paired bootstrap with scenes as clusters.

Both sides answered the same questions, so a resample draws scenes and looks at the *difference* of
the metric on them: what makes a scene hard for both cancels. Where a side is several runs (seeds),
its metric is the mean over them. The interval is the 95 % percentile interval of the difference;
p is two-sided, twice the smaller share of resamples on one side of zero (both counted with one
added, so it is never 0).

With few scenes such a p is too small: n scenes that all favour one side do so by chance with
probability 2 / 2^n, so fewer than 6 scenes cannot reach 5 % under any fair test. There p is not
given. Cost: as ``bootstrap``, milliseconds a metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.evaluation.per_question import PerQuestion
from threedrs.metrics.bootstrap import PERCENTILES, SEED, Metric, scene_counts, scene_sums

FEWEST_SCENES = 6
LEVEL = 0.05


def compare(
    runs: Sequence[PerQuestion],
    baselines: Sequence[PerQuestion],
    *,
    resamples: int,
    seed: int = SEED,
) -> dict[str, dict[str, Any]]:
    """Return, for each metric that all sides have, the difference of runs and baselines.

    Args:
        runs: one run, or several that differ in the seed.
        baselines: the same for the other side.
        resamples: R, how many resamples; 0: neither interval nor p.
        seed: of the draws.

    Returns:
        ``{metric: {"difference", "low", "high", "p", "scenes"}}``: percentage points; low, high
        and p are null where they cannot be given.

    Raises:
        DataError: the sides are not of the same questions.
    """
    sides = [_aligned(side, baselines[0].ids) for side in (*runs, *baselines)]
    scenes = baselines[0].scenes
    names = [name for name in baselines[0].metrics if all(name in side for side in sides)]
    signs = np.array([1 / len(runs)] * len(runs) + [-1 / len(baselines)] * len(baselines))
    sums = {
        name: [scene_sums(side[name].statistics_QS, scenes) for side in sides] for name in names
    }
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
    count = len(set(scenes))
    for counts_RC in scene_counts(count, resamples, seed):
        for name in names:
            values_SR = [
                side[name].combine(counts_RC @ sums_CS)
                for side, sums_CS in zip(sides, sums[name], strict=True)
            ]
            drawn[name].append(signs @ np.stack(values_SR))
    results = {}
    for name in names:
        difference = float(signs @ [side[name].value() for side in sides])
        differences_R = np.concatenate(drawn[name]) if drawn[name] else np.zeros(0)
        results[name] = {"difference": difference, **_spread(difference, differences_R, count)}
    return results


def _aligned(side: PerQuestion, ids: tuple[str, ...]) -> Mapping[str, Metric]:
    """Return the side's metrics with its questions in the order of ``ids``."""
    row_of = {question: row for row, question in enumerate(side.ids)}
    missing = [question for question in ids if question not in row_of]
    if missing or len(ids) != len(side.ids):
        raise DataError(
            f"runs cannot be compared: one answered {len(side.ids)} questions, the baseline "
            f"{len(ids)}{f', among them {missing[0]!r}' if missing else ''}; predict both again"
        )
    rows = [row_of[question] for question in ids]
    return {name: metric.of(rows) for name, metric in side.metrics.items()}


def _spread(difference: float, differences_R: np.ndarray, scenes: int) -> dict[str, Any]:
    spread: dict[str, Any] = {"low": None, "high": None, "p": None, "scenes": scenes}
    # One scene resampled is the same scene: it shows no spread.
    if len(differences_R) and scenes > 1:
        # Sums in another order differ in the last digits; such a difference is none.
        settled_R = np.where(np.abs(differences_R) < 1e-9, 0.0, differences_R)
        low, high = np.percentile(settled_R, PERCENTILES)
        spread["low"], spread["high"] = min(float(low), difference), max(float(high), difference)
        if scenes >= FEWEST_SCENES:
            tail = min(int((settled_R <= 0).sum()), int((settled_R >= 0).sum()))
            spread["p"] = min(1.0, 2 * (tail + 1) / (len(settled_R) + 1))
    return spread


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Return p values corrected for their number (Holm, 1979), keyed as given."""
    adjusted: dict[Any, float] = {}
    largest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = largest
    return adjusted
