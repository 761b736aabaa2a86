"""ScanQA: short free-form answers; caption metrics and exact match against all references.

The caption metrics see the prediction without its trailing dots, the references as they are.
``em`` compares the prediction verbatim; ``em_normalised`` compares after SQA3D's normalisation.
"""

from collections.abc import Sequence

from threedrs.evaluation.benchmark import Benchmark
from threedrs.evaluation.predictions import Prediction
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.metrics.captions import CAPTION_METRICS, caption_metrics
from threedrs.metrics.exact_match import exact_match, exact_match_normalised


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return CIDEr, BLEU-1..4, METEOR, ROUGE-L, EM and normalised EM."""
    predictions = [row.prediction or "" for row in rows]
    references = [list(row.references) for row in rows]
    pairs = list(zip(predictions, references, strict=True))
    return {
        "em": mean_metric([exact_match(text, truths) for text, truths in pairs]),
        "em_normalised": mean_metric([exact_match_normalised(*pair) for pair in pairs]),
        **caption_metrics([text.rstrip(".") for text in predictions], references, meteor=meteor),
    }


BENCHMARK = Benchmark(
    name="scanqa",
    title="ScanQA",
    paper="https://arxiv.org/abs/2112.10482",
    grounding=False,
    metrics=("em", "em_normalised", *CAPTION_METRICS),
    measure=measure,
)
