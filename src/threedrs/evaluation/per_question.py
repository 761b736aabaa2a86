"""What each question contributes to each metric, kept beside the metrics file.

``per_question.npz`` holds, for every metric that could be computed, the per-question statistics of
which the metric is a function of sums (``bootstrap.Metric``), with ids, scenes and question types.
From it runs are compared question by question, without a metric being computed again and without
Java. About 1 MB for 10,000 questions; the same questions give the same bytes.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import atomic_file
from threedrs.metrics.bootstrap import Metric, Metrics, ratio_of_sums
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction

FORMAT_VERSION = 1
FILE_NAME = "per_question.npz"
_STATISTICS = "statistics:"


@dataclass(frozen=True, kw_only=True, eq=False)
class PerQuestion:
    """The questions of one run and benchmark, and their metrics.

    Attributes:
        ids: ids of the Q questions.
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
    if len(counts) != 1 or not ids:
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
