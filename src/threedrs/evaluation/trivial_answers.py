"""What anyone scores without looking at a room, and runs that answer so themselves.

Three ways to answer, all scored by the benchmarks' own code on the questions that the runs were
asked. What they know is of the training records alone.

- chance: one candidate box, each as likely. Its score is the mean over all candidates, which is the
  expected one and takes no draws. Where no box may be meant, "no object" is a candidate too. Texts
  have no list of candidates, so chance is not defined for them.
- one answer: the same answer to every question. Of the most frequent training answers it is the one
  that scores best on the training questions. Where no box may be meant it is "no object".
- first words: the most frequent training answer to questions that open with the same words, as
  many of the first four as any training question shares.

Cost: two to three minutes for the five full-size benchmarks, on one core. METEOR is left out.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from heapq import nsmallest
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import read_result, write_json
from threedrs.metrics.bootstrap import Metric, Metrics
from threedrs.tasks.base import Column, Task
from threedrs.tasks.prediction import Prediction, read_predictions
from threedrs.tasks.record import Record, read_records
from threedrs.tasks.registry import find_task

FORMAT_VERSION = 1
CHANCE, ONE_ANSWER, FIRST_WORDS = "chance", "one answer", "first words"
HOW = {
    CHANCE: "One of the candidate boxes, each as likely; the exact mean over all of them. Answers "
    "in words have no list of candidates, so chance is not defined for them.",
    ONE_ANSWER: "The same answer to every question: of the most frequent training answers the one "
    "that scores best on the training questions, or no object where that may be meant.",
    FIRST_WORDS: "The most frequent training answer to questions that open with the same words.",
}
WORDS = 4  # of a question that count as its opening
CANDIDATES = 20  # most frequent answers that are tried as the one answer
TRIED_ON = 1000  # training questions, evenly spaced

Scores = dict[str, dict[str, float]]


def write_trivial_answers(
    predictions: Mapping[str, Sequence[Path]],
    records: Mapping[str, Path],
    training: Mapping[str, Path],
    out: Path,
) -> None:
    """Write ``{"format_version", "benchmarks": {name: {way: {metric: percent}}}}`` to ``out``.

    By benchmark, ``predictions`` are those of runs, which were asked the same questions, and
    ``training`` holds the training records, where there are any.

    Raises:
        ConfigError: unknown benchmark.
        DataError: a file is missing or malformed, or a question is not among the records.
    """
    scores = {
        name: _benchmark_scores(find_task(name), paths, records[name], training.get(name))
        for name, paths in predictions.items()
    }
    write_json(out, {"format_version": FORMAT_VERSION, "benchmarks": scores})


def _benchmark_scores(
    task: Task, predictions: Sequence[Path], records: Path, training: Path | None
) -> Scores:
    # A model without a grounding head answers nothing, so that the next one has to tell the boxes.
    rows = next(filter(None, (read_predictions(path, task) for path in predictions)), [])
    asked = {record.id: record for record in read_records(records)} if rows else {}
    if unknown := [row.id for row in rows if row.id not in asked]:
        raise DataError(
            f"{records}: has no question {unknown[0]!r}, which was asked; run "
            "`snakemake --cores all scores`"
        )
    learned = list(read_records(training)) if training and not task.grounding else []
    return trivial_scores(task, rows, [asked[row.id] for row in rows], learned)


def trivial_scores(
    task: Task, rows: Sequence[Prediction], asked: Sequence[Record], training: Sequence[Record]
) -> Scores:
    """Return way -> metric -> percent, of the ways that the benchmark has.

    ``rows`` are any run's predictions, of which boxes, true boxes and true answers count, and
    ``asked`` is the record of each. What is learned is of ``training``, the training records.
    """
    if not rows:
        return {}
    if task.grounding:
        scores = {CHANCE: _chance(task, rows)}
        if task.objects == "any":
            none = [_choosing(row, len(row.boxes)) for row in rows]
            scores[ONE_ANSWER] = _values(task.measure(none, False))
        return scores
    if not training:
        return {}
    answers = TrainingAnswers(task, training)
    one = answers.best_for_all()

    def scored(answer: Callable[[Record], str]) -> dict[str, float]:
        # An object without a detector box gets no answer from anyone.
        told = [
            replace(row, prediction=answer(record)) if task.needs_model(record) else row
            for row, record in zip(rows, asked, strict=True)
        ]
        return _values(task.measure(told, False))

    return {ONE_ANSWER: scored(lambda record: one), FIRST_WORDS: scored(answers.by_first_words)}


def _chance(task: Task, rows: Sequence[Prediction]) -> dict[str, float]:
    """Return the expected metrics of a random candidate."""
    counts = [max(1, len(row.boxes) + (task.objects == "any")) for row in rows]
    tried = [
        _choosing(row, candidate)
        for row, count in zip(rows, counts, strict=True)
        for candidate in range(count)
    ]
    share_F1 = np.repeat(1 / np.array(counts), counts)[:, None]
    measured = task.measure(tried, False)
    # A metric is a function of sums over questions, and the sum of each question's mean over its
    # candidates is the expected sum.
    return {
        name: float(metric.combine((metric.statistics_QS * share_F1).sum(axis=0)[None])[0])
        for name, metric in measured.items()
        if isinstance(metric, Metric)
    }


def _choosing(row: Prediction, candidate: int) -> Prediction:
    """Return the row with scores that choose a box, or no object where it is the last one."""
    return replace(row, scores=_one_of(len(row.boxes) + 1)[candidate])


@lru_cache
def _one_of(candidates: int) -> np.ndarray:
    # The rows of one matrix are views, so that half a million of them take little memory.
    return 2 * np.eye(candidates) - 1


def _values(metrics: Metrics) -> dict[str, float]:
    return {name: m.value() for name, m in metrics.items() if isinstance(m, Metric)}


class TrainingAnswers:
    """What the training answers of a benchmark say about a question without its room."""

    def __init__(self, task: Task, records: Sequence[Record]) -> None:
        self._task = task
        self._records = records
        self._counts = Counter(record.answer for record in records)
        self._by_opening: dict[str, Counter[str]] = {}
        for record in records:
            for words in range(1, WORDS + 1):
                opening = first_words(task, record.human, words)
                self._by_opening.setdefault(opening, Counter())[record.answer] += 1

    def by_first_words(self, record: Record) -> str:
        """Return the most frequent answer to questions that open alike; of several the first."""
        for words in range(WORDS, 0, -1):
            if found := self._by_opening.get(first_words(self._task, record.human, words)):
                return min(found, key=lambda answer: (-found[answer], answer))
        return self._frequent(1)[0]

    def best_for_all(self) -> str:
        """Return the answer that scores best where it is given to every training question."""
        questions: dict[tuple[str, str, str], list[Record]] = {}
        for record in self._records:
            key = record.scene, record.human, str(record.box_input)
            questions.setdefault(key, []).append(record)
        kept = list(questions.values())[:: -(-len(questions) // TRIED_ON)]
        rows = [
            Prediction(
                id=members[0].id,
                benchmark=self._task.name,
                scene=members[0].scene,
                question_type=members[0].question_type,
                references=tuple(record.answer for record in members),
            )
            for members in kept
        ]

        def score(answer: str) -> float:
            told = [replace(row, prediction=answer) for row in rows]
            return _values(self._task.measure(told, False))[self._task.judged_by]

        # Of equally good ones the first, which is the most frequent.
        return max(self._frequent(CANDIDATES), key=score)

    def _frequent(self, count: int) -> list[str]:
        """Return the most frequent answers, of equally frequent ones those of common words."""
        # No two descriptions need be equal.
        spread = Counter(word for answer in self._counts for word in set(answer.lower().split()))

        def rank(answer: str) -> tuple[float, float, str]:
            common = fmean(spread[word] for word in answer.lower().split())
            return -self._counts[answer], -common, answer

        return nsmallest(count, self._counts, key=rank)


def first_words(task: Task, human: str, words: int) -> str:
    """Return the first ``words`` words of the question within a prompt, in lower case.

    The question is the last sentence of what an annotation adds to the benchmark's prompt.
    """
    asked = human.removeprefix(task.prompt.partition("{")[0])
    asked = asked.removesuffix(task.prompt.rpartition("}")[2]).rstrip(" .?!\n")
    return " ".join(re.split(r"[.!?>\n]\s*", asked)[-1].lower().split()[:words])


def read_trivial_answers(path: Path) -> dict[str, Scores]:
    """Return benchmark -> way -> metric -> percent.

    Raises:
        DataError: the file is missing, malformed or of another format version.
    """
    return read_result(path, FORMAT_VERSION, "scores")["benchmarks"]


def sentences_below(summary: Mapping[str, Any], columns: Sequence[Column]) -> list[str]:
    """Return a sentence for each setting that scores less than an answer without looking.

    A score whose interval over rooms reaches that answer's is not meant, nor are the answers of a
    setting's own model without its images (controls).
    """
    ways = {row["name"]: row for row in summary["trivial"] if row["name"] in HOW}
    sentences = []
    for group in summary["groups"]:
        scored, below = 0, []
        for column in columns:
            mean = mean_of(group, column.benchmark, column.metric)
            known = {n: mean_of(row, column.benchmark, column.metric) for n, row in ways.items()}
            others = {name: value for name, value in known.items() if value is not None}
            if mean is None or not others:
                continue
            scored += 1
            best = max(others, key=lambda name: others[name])
            runs = (summary["runs"][run]["benchmarks"][column.benchmark] for run in group["runs"])
            ends = (found["metrics"][column.metric]["high"] for found in runs)
            highest = max([mean, *(high for high in ends if high is not None)])
            # As the tables print them.
            if round(highest, 1) < round(others[best], 1):
                below.append(f"{column.full_title} ({best})")
        if below:
            several = len(group["runs"]) > 1
            sentences.append(
                f"{'The mean of ' if several else ''}{group['name']} scores below what anyone gets "
                f"without looking on {len(below)} of {scored} metrics: {', '.join(below)}."
            )
    return sentences


def mean_of(row: Mapping[str, Any], benchmark: str, metric: str) -> float | None:
    """Return a metric of a group or trivial row of a summary, percent; None where it has none."""
    return row["metrics"].get(benchmark, {}).get(metric, {}).get("mean")


def summary_rows(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Return the rows of a summary, a way each, as `scores` gives them by benchmark."""
    rows = []
    for name, how in HOW.items():
        metrics = {
            benchmark: {metric: {"mean": value} for metric, value in ways[name].items()}
            for benchmark, ways in scores.items()
            if name in ways
        }
        if metrics:
            rows.append({"name": name, "how": how, "metrics": metrics})
    return rows
