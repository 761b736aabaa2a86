"""SQA3D: one answer a situated question; exact match after normalising both sides.

Its exact match is always the normalised one, so ``em`` (the benchmark's own number) and
``em_normalised`` (the number that has one meaning in all benchmarks) agree here.
"""

from collections.abc import Sequence

from threedrs.evaluation.benchmark import Benchmark
from threedrs.evaluation.predictions import Prediction
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.metrics.exact_match import exact_match_normalised


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return the exact match (``meteor`` plays no part)."""
    matches = mean_metric(
        [exact_match_normalised(row.prediction or "", row.references) for row in rows]
    )
    return {"em": matches, "em_normalised": matches}


BENCHMARK = Benchmark(
    name="sqa3d",
    title="SQA3D",
    paper="https://arxiv.org/abs/2210.07474",
    grounding=False,
    metrics=("em", "em_normalised"),
    measure=measure,
)
