"""Evaluation during training: the model as it stands answers a small, fixed part of the benchmarks.

That part is the first questions of each benchmark's evaluation records. It draws no random numbers
and changes no weight, so losses are the same with and without it. An evaluation costs a pass over
each scene, and one small pass for each token of the longest answer in it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from threedrs.evaluation.answerer import (
    StudentAnswerer,
    open_store,
    prediction_rows,
    read_questions,
)
from threedrs.metrics.bootstrap import Metric
from threedrs.models.model_settings import PredictSettings
from threedrs.models.student import Student
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record
from threedrs.tasks.registry import find_task

Scores = dict[str, dict[str, float | None]]


class Evaluation:
    """The questions that a run answers while it trains.

    The section ``evaluation`` of the resolved run names the ``records`` of each benchmark, the
    ``settings`` of inference, and optionally the file ``left_out`` of scenes that are not asked
    about.

    Raises:
        DataError: records cannot be used.
        StoreError: the store of a scene of the slice is missing.
    """

    def __init__(
        self, config: Mapping[str, Any], student: Student, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.student = student
        self.tokenizer = tokenizer
        section, count = config["evaluation"], config["train"]["eval_samples"]
        self.settings = PredictSettings(**section["settings"])
        self.scenes = Path(config["paths"]["scenes"])
        left_out = read_excluded(Path(section["left_out"])) if "left_out" in section else {}
        self.records: dict[str, dict[str, list[Record]]] = {}  # by scene, then by benchmark
        for path in section["records"]:
            every_record, benchmark = read_questions(Path(path))
            records = [record for record in every_record if record.scene not in left_out]
            for record in records[:count]:
                of_scene = self.records.setdefault(record.scene, {})
                of_scene.setdefault(benchmark.name, []).append(record)
        # A store that is missing ends the run now, not after hours of training.
        for scene in self.records:
            open_store(self.scenes, scene)

    def measure(self, stopped: Callable[[], bool]) -> Scores | None:
        """Return the headline metrics of each benchmark in percent; None where one cannot be had.

        ``stopped`` is asked before each scene, on every rank, which all get the same answer; if it
        says yes, there are no scores at all.

        Raises:
            DataError: scores are not finite, or an object has no true box.
            MachineError: a scene does not fit into the GPU's memory.
        """
        rows: dict[str, list[Prediction]] = {}
        # Without dropout; training goes on in the mode that it had.
        training = self.student.training
        self.student.eval()
        try:
            answerer = StudentAnswerer(self.student, self.tokenizer, self.settings)
            # Every rank answers all questions, as under ZeRO-3 they gather the parameters together.
            for scene, of_scene in self.records.items():
                if stopped():
                    return None
                store = open_store(self.scenes, scene)
                answers = answerer.open(store)
                for name, records in of_scene.items():
                    answered = prediction_rows(records, find_task(name), answers, store)
                    rows.setdefault(name, []).extend(answered)
        finally:
            self.student.train(training)
        return {name: _headline(name, rows[name]) for name in sorted(rows)}


def _headline(name: str, rows: list[Prediction]) -> dict[str, float | None]:
    task = find_task(name)
    # Without METEOR, which needs Java. Intervals would take longer than the answers.
    measured = task.measure(rows, False)
    found = {headline.metric: measured[headline.metric] for headline in task.headline}
    return {name: m.value() if isinstance(m, Metric) else None for name, m in found.items()}
