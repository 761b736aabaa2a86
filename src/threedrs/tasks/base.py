"""What a benchmark's file defines: a `Task`.

A benchmark turns annotation files into records, says how a model answers them, and measures the
answers. Everything that knows a benchmark by name stands in its own file; all other code asks the
`Task`. The functions that convert and that measure stand at the top level of that file, so that an
edited metric makes no record stale.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from threedrs.metrics.bootstrap import Metrics
from threedrs.tasks.annotation_rows import (
    TRAINING_SPLIT,
    AnnotationFile,
    AnnotationTables,
    PublishedSize,
    Rejection,
)
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record

# Stands for a part that was not given: a Task without it can be made, and `Task.fault` names it.
LACKING: Any = None


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A metric that papers print."""

    metric: str  # name in ``metrics.json``
    title: str  # name as papers print it
    meaning: str  # what it measures, in plain words


@dataclass(frozen=True, kw_only=True)
class Column(Headline):
    """A headline metric of a benchmark: a column of the tables, under the benchmark's ``group``."""

    benchmark: str
    group: str

    @property
    def full_title(self) -> str:
        """The column's heading where it stands by itself."""
        return f"{self.group} {self.title}"


def published_scores(benchmark: str) -> dict[str, tuple[float | None, ...]]:
    """Return a benchmark's columns of ``published_scores.csv``: method -> values in percent.

    Methods without a value are not in it, so that a new benchmark has none; None stands for an
    empty cell.
    """
    table = Path(__file__).with_name("published_scores.csv")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = {
        row["method"]: tuple(
            float(value) if value else None
            for column, value in row.items()
            if column.startswith(f"{benchmark}:")
        )
        for row in rows
    }
    return {method: values for method, values in scores.items() if set(values) - {None}}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One benchmark."""

    name: str = LACKING  # as in file names, in the configuration and on the command line
    title: str = LACKING  # as papers print it
    paper: str = LACKING  # where data and protocol are described
    # Version of prompt, conversion and metrics as they stand here. Raise it with a change after
    # which old and new scores do not compare.
    protocol: int = LACKING
    dataset: str = LACKING  # name in LLaVA-style files
    # Where such a file holds the true answers of a question: under the key "references" or
    # "annotations", under "answers" in its metadata, or in the gpt "turn".
    references_in: Literal["references", "annotations", "answers", "turn"] = "references"
    untyped: str | None = None  # ``question_type`` in such a file where the benchmark has none
    # Annotation files; the rows of the first one are converted.
    files: tuple[AnnotationFile, ...] = LACKING
    splits: tuple[str, ...] = LACKING  # splits that ``files`` exist for, "train" among them
    evaluation_split: str = LACKING  # the split that scores are published for
    # Per split, the sizes by which a full published file is known and checked.
    published_sizes: Mapping[str, PublishedSize] = field(default_factory=dict)
    prompt: str = LACKING  # what the model is asked, with the names of the row's texts in braces
    # Yields a record or a rejection at a time.
    convert: Callable[[AnnotationTables], Iterator[Record | Rejection]] = LACKING
    # How many annotated objects a question is about: "none" if it names none, "one", or "any"
    # number, zero included.
    objects: Literal["none", "one", "any"] = "none"
    # Whether a question points at a box. One without a box is not asked (`needs_model`).
    box_input: bool = False
    # Scores (N+1,) of proposals and zero target to the rows of the proposals that are the answer,
    # best first. None: the answer is a text, not boxes.
    choose: Callable[[np.ndarray], np.ndarray] | None = None
    metrics: tuple[str, ...] = LACKING  # names of all metrics, in the order of tables
    # Rows, and whether METEOR is wanted, to the metrics over these rows.
    measure: Callable[[Sequence[Prediction], bool], Metrics] = LACKING
    # Metric to its function from sums of statistics to percent. A metric without one is a ratio of
    # two sums, such as a mean (``metrics.bootstrap``).
    combine: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    headline: tuple[Headline, ...] = LACKING  # the metrics that papers print, in their order
    # Further metrics that papers print, and question types by which they do so, each with its name
    # in papers and in their order. The report's details and the order of types follow them.
    further: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    # Method to its published headline values in percent, None where the paper gives no number.
    published_scores: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    # Question type, or "all", to the other values that the 3DRS paper prints of its main model:
    # metric to percent.
    published_details: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    judged_by: str = LACKING  # the metric that says how good one answer is

    @property
    def grounding(self) -> bool:
        """Return whether the answer is a set of boxes, not a text."""
        return self.choose is not None

    def needs_model(self, record: Record) -> bool:
        """Return whether a model is asked this question; the answer to any other one is empty."""
        return not self.box_input or record.box_input is not None

    def needs_true_boxes(self, split: str) -> bool:
        """Return whether records of ``split`` are of no use where their objects lack true boxes.

        Training takes them, and boxes are scored against them; a caption is not.
        """
        return self.objects != "none" and (split == TRAINING_SPLIT or self.grounding)

    def seems_short_of_answers(self, references: Iterable[Sequence[str]]) -> bool:
        """Return whether no question has a second true answer, though its files give several."""
        # Where such a list has a key of its own, many of its questions have more than one answer.
        several = self.references_in in ("answers", "annotations")
        return several and all(len(texts) < 2 for texts in references)

    @property
    def columns(self) -> list[Column]:
        """The columns of the tables."""
        return [
            Column(benchmark=self.name, group=self.title, **vars(headline))
            for headline in self.headline
        ]

    def ordered_types(self, found: Iterable[str]) -> list[str]:
        """Return question types, each once: those of papers in their order, others by name."""
        order = {kind: index for index, kind in enumerate(self.types)}
        return sorted(set(found), key=lambda kind: (order.get(kind, len(order)), kind))

    def code_entry(self, part: Literal["convert", "measure"]) -> str:
        """Return where a function stands, as `threedrs.workflow.code_hash` takes its entries."""
        function = getattr(self, part)
        return f"{function.__module__.removeprefix('threedrs.')}:{function.__qualname__}"

    def fault(self) -> str | None:
        """Return what keeps this task from being used, or None.

        Asked before anything runs, so that a missing part is not found after a training.
        """
        optional = {"choose", "untyped"}
        lacking = [
            part.name
            for part in fields(self)
            if getattr(self, part.name) is LACKING and part.name not in optional
        ]
        if lacking:
            return f"lacks {', '.join(lacking)}"
        if not {TRAINING_SPLIT, self.evaluation_split} <= set(self.splits):
            return f"splits must hold {TRAINING_SPLIT!r} and {self.evaluation_split!r}"
        shown = (self.judged_by, *(headline.metric for headline in self.headline), *self.further)
        for metric in shown:
            if metric not in self.metrics:
                return f"metrics does not hold {metric!r}, which a table or the report shows"
        if any(len(row) != len(self.headline) for row in self.published_scores.values()):
            return f"published_scores must give {len(self.headline)} values a method, as headline"
        if self.grounding and self.objects == "none":
            return "answers with boxes (choose), so objects must be 'one' or 'any'"
        return None
