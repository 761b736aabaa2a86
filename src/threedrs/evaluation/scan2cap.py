"""Scan2Cap: describe the object in a given box; caption metrics over all objects ("@0.5").

An object without a detector box of IoU >= 0.5 has the empty prediction, and it counts.
"""

from collections.abc import Sequence

from threedrs.evaluation.benchmark import Benchmark
from threedrs.evaluation.predictions import Prediction
from threedrs.metrics.bootstrap import Metrics
from threedrs.metrics.captions import CAPTION_METRICS, caption_metrics


def wrapped(text: str) -> str:
    """Return the text as the benchmark compares it: ``sos [text] eos``.

    Lower case, full stops and commas surrounded by spaces.
    """
    return f"sos {text.lower().replace('.', ' . ').replace(',', ' , ')} eos"


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return CIDEr, BLEU-1..4, METEOR and ROUGE-L of the wrapped texts."""
    return caption_metrics(
        [wrapped(row.prediction or "") for row in rows],
        [[wrapped(text) for text in row.references] for row in rows],
        meteor=meteor,
    )


BENCHMARK = Benchmark(
    name="scan2cap",
    title="Scan2Cap",
    paper="https://arxiv.org/abs/2012.02206",
    grounding=False,
    metrics=CAPTION_METRICS,
    measure=measure,
)
