"""Runs against a baseline, question by question: the paired bootstrap with scenes as clusters.

``per_question.npz`` holds, for every metric that could be computed, the per-question statistics of
which the metric is a function of sums (``bootstrap.Metric``), with ids, scenes and question types.
So runs are compared without computing a metric again and without Java. It takes about 1 MB for
10,000 questions; the same questions give the same bytes.

Both sides answered the same questions, so a resample draws scenes and looks at the *difference* of
the metric on them: what makes a scene hard for both cancels. Where a side is several runs (seeds),
its metric is the mean over them. The interval is the 95 % percentile interval of the difference;
p is two-sided, twice the smaller share of resamples on one side of zero (both counted with one
added, so it is never 0).

With few scenes such a p is too small: n scenes that all favour one side do so by chance with
probability 2 / 2^n, so fewer than 6 scenes cannot reach 5 % under any fair test. There p is not
given. Cost: as ``bootstrap``, milliseconds a metric.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import atomic_file
from threedrs.metrics.bootstrap import (
    PERCENTILES,
    SEED,
    Metric,
    Metrics,
    ratio_of_sums,
    scene_counts,
    scene_sums,
)
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction

FORMAT_VERSION = 1
FILE_NAME = "per_question.npz"
_STATISTICS = "statistics:"
FEWEST_SCENES = 6
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class PerQuestion:
    """The questions of one run and benchmark, and their metrics.

    Attributes:
        ids: ids of the Q questions, none of a run that does not answer the benchmark.
        scenes: scene of each question.
        question_types: type of each question; "" where it has none.
        metrics: metric name to the metric over the Q questions.
    """

    ids: tuple[str, ...]
    scenes: tuple[str, ...]
    question_types: tuple[str, ...]
    metrics: Mapping[str, Metric]

    def values(self, metric: str) -> np.ndarray:
        """Return the metric of each question by itself, (Q,) float64, percent."""
        chosen = self.metrics[metric]
        return chosen.combine(chosen.statistics_QS)


def write_per_question(path: Path, rows: Sequence[Prediction], metrics: Metrics) -> None:
    """Write the statistics of ``metrics`` over ``rows``; unavailable metrics are left out."""
    arrays = {
        f"{_STATISTICS}{name}": metric.statistics_QS
        for name, metric in metrics.items()
        if isinstance(metric, Metric)
    }
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            allow_pickle=False,
            format_version=np.array(FORMAT_VERSION),
            id=np.array([row.id for row in rows]),
            scene=np.array([row.scene for row in rows]),
            question_type=np.array([row.question_type or "" for row in rows]),
            **arrays,
        )


def read_per_question(path: Path, task: Task) -> PerQuestion:
    """Return the content of a per-question file of a benchmark.

    Raises:
        DataError: it is missing, damaged, or of another format version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; score the predictions again") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is damaged ({error}); score the predictions again") from error
    texts = [arrays.get(name) for name in ("id", "scene", "question_type")]
    version = arrays.get("format_version")
    if version is None or version.shape != () or version != FORMAT_VERSION:
        raise DataError(
            f"{path}: is not a per-question file of format version {FORMAT_VERSION}; score the "
            "predictions again"
        )
    ids, scenes, question_types = (
        tuple(text.tolist()) if text is not None and text.ndim == 1 else () for text in texts
    )
    statistics = {
        name.removeprefix(_STATISTICS): array
        for name, array in arrays.items()
        if name.startswith(_STATISTICS)
    }
    counts = {len(ids), len(scenes), len(question_types)}
    counts |= {len(array) if array.ndim == 2 else -1 for array in statistics.values()}
    if len(counts) != 1 or (statistics and not ids):
        raise DataError(f"{path}: its arrays do not fit together; score the predictions again")
    return PerQuestion(
        ids=ids,
        scenes=scenes,
        question_types=question_types,
        metrics={
            name: Metric(statistics_QS=array, combine=task.combine.get(name, ratio_of_sums))
            for name, array in statistics.items()
        },
    )


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
    # The difference of the two means is one product with these weights.
    signs = np.array([1 / len(runs)] * len(runs) + [-1 / len(baselines)] * len(baselines))
    sums = {
        name: [scene_sums(side[name].statistics_QS, scenes) for side in sides] for name in names
    }
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
    count = len(set(scenes))
    # One draw of scenes serves all sides and metrics, which is what makes the comparison paired.
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
        # Sums in another order differ in the last digits, which is not a difference of the runs.
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
