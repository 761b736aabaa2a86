"""What scoring needs to know of a benchmark; each has a file that fills this in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from threedrs.metrics.bootstrap import Metrics

if TYPE_CHECKING:
    from threedrs.evaluation.predictions import Prediction


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as in files and on the command line.
        title: as papers print it.
        paper: where its data and protocol are described.
        grounding: True: the answer is a set of boxes; False: a text.
        metrics: names of its metrics, in the order of tables.
        one_true_box: whether every grounding question is about exactly one object.
        measure: rows and whether METEOR is wanted to the metrics over these rows.
    """

    name: str
    title: str
    paper: str
    grounding: bool
    metrics: tuple[str, ...]
    measure: Callable[[Sequence[Prediction], bool], Metrics]
    one_true_box: bool = False
