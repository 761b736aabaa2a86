"""Settings against a baseline, room by room, and the file that holds the questions.

``per_question.npz`` holds, for every metric that could be computed, the per-question statistics of
which the metric is a function of sums (``bootstrap.Metric``), with ids, scenes and question types.
So runs are compared without computing a metric again and without Java. It takes about 1 MB for
10,000 questions; the same questions give the same bytes.

A side is all runs of one setting, which differ in the seed alone. How far a difference of two
settings can be trusted is in ``metrics.setting_difference``. What can be said of it depends on the
seeds of the side that has fewer:

- one: the difference that was seen, and no more
- two: an interval, which is a hint
- three and more: an interval and a p value
"""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import atomic_file
from threedrs.metrics.bootstrap import Metric, Metrics, ratio_of_sums, scene_sums
from threedrs.metrics.setting_difference import FEWEST_SEEDS, Spread, smallest_p, spread, swap_p
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction

FORMAT_VERSION = 1
FILE_NAME = "per_question.npz"
_STATISTICS = "statistics:"
_NO_VARIANCE = 1e-12  # points squared; sums in another order differ in the last digits


@dataclass(frozen=True, kw_only=True, eq=False)
class PerQuestion:
    """The questions of one run and benchmark, and their metrics."""

    ids: tuple[str, ...]  # ids of the Q questions, none of a run that does not answer the benchmark
    scenes: tuple[str, ...]  # scene of each question
    question_types: tuple[str, ...]  # type of each question; "" where it has none
    metrics: Mapping[str, Metric]  # metric name to the metric over the Q questions

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
    if arrays.get("format_version", -1) != FORMAT_VERSION:
        raise DataError(
            f"{path}: is not a per-question file of format version {FORMAT_VERSION}; score the "
            "predictions again"
        )
    ids, scenes, question_types = (
        tuple(arrays[name].tolist()) for name in ("id", "scene", "question_type")
    )
    return PerQuestion(
        ids=ids,
        scenes=scenes,
        question_types=question_types,
        metrics={
            name: Metric(
                statistics_QS=arrays[f"{_STATISTICS}{name}"],
                combine=task.combine.get(name, ratio_of_sums),
            )
            for name in (key.removeprefix(_STATISTICS) for key in arrays if _STATISTICS in key)
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """One metric of two settings."""

    difference: float  # mean over the seeds of one side minus that of the other, percentage points
    # What the difference varies with; None with one seed on a side, or in one room.
    spread: Spread | None
    p: float | None  # two-sided; None with fewer than three seeds on a side, or in one room
    seeds: tuple[int, int]  # numbers of runs of both sides
    scenes: int  # number of rooms
    questions: int  # number of questions

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name, with the 95 % interval; null where there is none."""
        low, high = (None, None) if self.spread is None else self.spread.interval()
        return {
            "difference": self.difference,
            "low": low,
            "high": high,
            "p": self.p,
            "smallest_p": smallest_p(self.scenes),
            "seeds_share": None if self.spread is None else float(self.spread.seeds_share),
            "seeds": list(self.seeds),
            "scenes": self.scenes,
            "questions": self.questions,
        }


def compare(runs: Sequence[PerQuestion], baselines: Sequence[PerQuestion]) -> dict[str, Comparison]:
    """Return the comparison of each metric that all runs of two settings have.

    Raises:
        DataError: the sides are not of the same questions.
    """
    scenes = baselines[0].scenes
    return {name: _compared(*sides, scenes) for name, sides in shared_metrics(runs, baselines)}


def shared_metrics(
    runs: Sequence[PerQuestion], others: Sequence[PerQuestion]
) -> Iterator[tuple[str, tuple[list[Metric], list[Metric]]]]:
    """Yield each metric that all runs of two sides have, the questions in the others' order.

    Raises:
        DataError: the sides are not of the same questions.
    """
    mine, base = ([_aligned(run, others[0].ids) for run in side] for side in (runs, others))
    for name in others[0].metrics:
        if all(name in run for run in (*mine, *base)):
            yield name, ([run[name] for run in mine], [run[name] for run in base])


def _compared(mine: Sequence[Metric], other: Sequence[Metric], scenes: Sequence[str]) -> Comparison:
    means = [np.mean([metric.value() for metric in side]) for side in (mine, other)]
    rooms, fewest = len(set(scenes)), min(len(mine), len(other))
    found = p = None
    if fewest > 1 and rooms > 1:
        combine = mine[0].combine
        mine_NCS, other_NCS = room_sums(mine, scenes), room_sums(other, scenes)
        found = spread(mine_NCS, other_NCS, combine)
        if fewest >= FEWEST_SEEDS:
            swapped = swap_p(mine_NCS.mean(axis=0), other_NCS.mean(axis=0), combine)
            p = max(float(found.p_value()), swapped)
            # Trainings that all score the same say nothing of how much another would differ, and a
            # training that always gives one answer does so. What is left is the exact test that
            # exchanges trainings. Three a side never give less than 0.1.
            if found.seeds_variance < _NO_VARIANCE:
                p = max(p, 2 / math.comb(len(mine) + len(other), len(mine)))
    return Comparison(
        difference=float(means[0] - means[1]),
        spread=found,
        p=p,
        seeds=(len(mine), len(other)),
        scenes=rooms,
        questions=len(scenes),
    )


def room_sums(trainings: Sequence[Metric], scenes: Sequence[str]) -> np.ndarray:
    """Return the statistics (N,C,S) of a metric of N trainings, summed over each room."""
    # All at once, as most of the time goes into finding the questions of each room.
    statistics = np.concatenate([metric.statistics_QS for metric in trainings], axis=1)
    return np.stack(np.split(scene_sums(statistics, scenes), len(trainings), axis=1))


def _aligned(side: PerQuestion, ids: tuple[str, ...]) -> Mapping[str, Metric]:
    """Return the side's metrics with its questions in the order of ``ids``.

    Raises:
        DataError: it is not of these questions.
    """
    row_of = {question: row for row, question in enumerate(side.ids)}
    missing = [question for question in ids if question not in row_of]
    if missing or len(ids) != len(side.ids):
        raise DataError(
            f"runs cannot be compared: one answered {len(side.ids)} questions, the baseline "
            f"{len(ids)}{f', among them {missing[0]!r}' if missing else ''}; predict both again"
        )
    rows = [row_of[question] for question in ids]
    return {name: metric.of(rows) for name, metric in side.metrics.items()}


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Return p values corrected for their number (Holm, 1979), keyed as given."""
    adjusted: dict[Any, float] = {}
    largest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = largest
    return adjusted
