"""Caption metrics from pycocoevalcap, as sums over questions: CIDEr, BLEU-1..4, METEOR, ROUGE-L.

Strings are split on spaces; there is no tokenizer step. CIDEr's inverse document frequencies come
from the references of all questions and stay fixed in resamples and question types, so that CIDEr
is the mean of its per-question scores. With a single question every document frequency equals the
number of documents, all weights vanish, and CIDEr is 0, as its definition has it.
BLEU is a function of summed n-gram counts (closest reference length), not a mean.

Sources: CIDEr (arXiv 1411.5726), BLEU (Papineni et al., ACL 2002), ROUGE-L (Lin, 2004).
Nodes that prepare data know the benchmarks too, so pycocoevalcap is imported only where it is used.
Cost: 10,000 references of 20 words take a few seconds; METEOR (Java) about ten more.
"""

from collections.abc import Callable, Sequence

import numpy as np

from threedrs.errors import MachineError
from threedrs.metrics.bootstrap import Metric, Metrics, Unavailable, mean_metric
from threedrs.metrics.meteor import meteor_metric, meteor_score

ORDERS = 4
CAPTION_METRICS = ("cider", "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l")


def caption_metrics(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, meteor: bool
) -> Metrics:
    """Return all caption metrics over Q >= 1 questions, in the order of ``CAPTION_METRICS``.

    A prediction may be empty; of a question's references at least one has a word. Where ``meteor``
    is not wanted it reads as unavailable.
    """
    metrics: dict[str, Metric | Unavailable] = {
        "cider": cider_metric(predictions, references),
        **bleu_metrics(predictions, references),
        "meteor": Unavailable(reason="left out on request"),
        "rouge_l": rouge_metric(predictions, references),
    }
    if meteor:
        try:
            metrics["meteor"] = meteor_metric(predictions, references)
        except MachineError as error:
            metrics["meteor"] = Unavailable(reason=str(error))
    return metrics


def cider_metric(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Return CIDEr as the mean of its per-question scores (0 to 10, so up to 1,000 in percent)."""
    from pycocoevalcap.cider.cider import Cider

    truths = {index: list(texts) for index, texts in enumerate(references)}
    answers = {index: [text] for index, text in enumerate(predictions)}
    # Document frequencies come from all references here, and stay fixed in every resample.
    _, scores_Q = Cider().compute_score(truths, answers)
    return mean_metric(scores_Q)


def rouge_metric(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Return ROUGE-L (F with beta 1.2, best precision and best recall over the references)."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    return mean_metric(
        [
            rouge.calc_score([text], list(texts))
            for text, texts in zip(predictions, references, strict=True)
        ]
    )


def bleu_metrics(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Metric]:
    """Return BLEU-1 to BLEU-4 as functions of summed n-gram counts.

    A question's statistics: matched n-grams of order 1..4, n-grams of order 1..4 in the prediction,
    length of the prediction, length of the reference closest to it (of equally close, the shorter).
    """
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=ORDERS)
    for text, texts in zip(predictions, references, strict=True):
        scorer += (text, list(texts))
    statistics_QS = np.array(
        [
            [
                *counts["correct"],
                *counts["guess"],
                counts["testlen"],
                min((abs(length - counts["testlen"]), length) for length in counts["reflen"])[1],
            ]
            for counts in scorer.ctest
        ],
        dtype=np.float64,
    )
    return {
        f"bleu{order}": Metric(statistics_QS=statistics_QS, combine=bleu_of_sums(order))
        for order in range(1, ORDERS + 1)
    }


def bleu_of_sums(order: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from summed n-gram counts (R, 10) to BLEU (R,), percent."""
    # The two constants are pycocoevalcap's: no division by zero, no matches give (almost) 0.
    small, tiny = 1e-9, 1e-15

    def combine(sums_RS: np.ndarray) -> np.ndarray:
        correct, guess = sums_RS[:, :order], sums_RS[:, ORDERS : ORDERS + order]
        precision = np.prod((correct + tiny) / (guess + small), axis=1) ** (1.0 / order)
        ratio = (sums_RS[:, -2] + tiny) / (sums_RS[:, -1] + small)
        brevity = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
        return 100.0 * precision * brevity

    return combine


# The metrics that are not a ratio of two sums.
COMBINE = {f"bleu{order}": bleu_of_sums(order) for order in range(1, ORDERS + 1)} | {
    "meteor": meteor_score
}
