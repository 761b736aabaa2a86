"""Caption metrics against pycocoevalcap's own totals, and the edges that trouble it."""

import shutil

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from threedrs.errors import MachineError
from threedrs.metrics import meteor
from threedrs.metrics.bootstrap import Metric, Unavailable
from threedrs.metrics.captions import CAPTION_METRICS, caption_metrics
from threedrs.tasks.scan2cap import wrapped

TEXT = "a brown chair is near the big black table in corner of room . it stands by window"


def corpus(count=40, seed=0):
    generator = np.random.default_rng(seed)

    def text():
        return " ".join(generator.choice(TEXT.split(), size=generator.integers(1, 12)))

    predictions = [text() for _ in range(count)]
    references = [[text() for _ in range(generator.integers(1, 4))] for _ in range(count)]
    predictions[3] = ""
    references[5][0] = predictions[5]
    return predictions, references


def scores(predictions, references):
    metrics = caption_metrics(predictions, references, meteor=False)
    assert tuple(metrics) == CAPTION_METRICS
    return {name: m.value() for name, m in metrics.items() if isinstance(m, Metric)}


def test_totals_equal_pycocoevalcap():
    predictions, references = corpus()
    truths = dict(enumerate(references))
    answers = {index: [text] for index, text in enumerate(predictions)}
    ours = scores(predictions, references)
    bleu, _ = Bleu(4).compute_score(truths, answers, verbose=0)
    for order in range(4):
        assert ours[f"bleu{order + 1}"] == pytest.approx(100 * bleu[order], rel=1e-12)
    assert ours["cider"] == pytest.approx(100 * Cider().compute_score(truths, answers)[0])
    assert ours["rouge_l"] == pytest.approx(100 * Rouge().compute_score(truths, answers)[0])


def test_rouge_and_bleu_by_hand():
    # One of two predicted words matches, one of three true ones: LCS 1, P = 1/2, R = 1/3.
    ours = scores(["brown table"], [["a brown chair"]])
    beta = 1.2**2
    assert ours["rouge_l"] == pytest.approx(100 * (1 + beta) * (1 / 6) / (1 / 3 + beta / 2))
    # Precision 1/2, brevity exp(1 - 3/2).
    assert ours["bleu1"] == pytest.approx(100 * 0.5 * np.exp(-0.5), rel=1e-6)
    assert ours["bleu2"] == pytest.approx(0.0, abs=1e-4)


def test_bleu_counts_the_true_text_of_the_nearest_length():
    answer = "a brown chair stands here"
    for truths, penalty in (
        ([answer + " now", "table"], 1 - 6 / 5),  # one more word is nearer than four fewer
        ([answer + " now", "a brown chair stands"], 0),  # of two as near the shorter
    ):
        ours = scores([answer], [truths])
        assert ours["bleu1"] == pytest.approx(100 * np.exp(penalty), rel=1e-6)


def test_perfect_predictions_reach_the_maximum():
    texts = [f"the {a} {b} stands here" for a in ("red", "blue") for b in ("chair", "table")]
    ours = scores(texts, [[text] for text in texts])
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"):
        assert ours[name] == pytest.approx(100.0)
    assert ours["cider"] == pytest.approx(1000.0)


def test_empty_predictions_and_a_single_question():
    empty = scores(["", ""], [["a chair"], ["a table"]])
    assert all(value == pytest.approx(0.0, abs=1e-6) for value in empty.values())
    # With one document every document frequency is that of all documents: CIDEr's weights vanish.
    assert scores(["a brown chair"], [["a brown chair"]])["cider"] == 0.0


def test_values_are_bounded_and_independent_of_order():
    predictions, references = corpus()
    ours = scores(predictions, references)
    turned = scores(predictions[::-1], references[::-1])
    for name, value in ours.items():
        assert 0.0 <= value <= (1000.0 if name == "cider" else 100.0)
        assert turned[name] == pytest.approx(value)


def test_scan2cap_wraps_its_texts():
    assert wrapped("This is a Chair.") == "sos this is a chair .  eos"
    assert wrapped("big,brown") == "sos big , brown eos"
    assert wrapped("").split() == ["sos", "eos"]


@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs Java")
def test_meteor_is_the_same_in_turkish(monkeypatch):
    # There, I would become a letter without a dot, and no word with it would match.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Duser.country=TR")
    monkeypatch.setenv("LC_ALL", "tr_TR.ISO-8859-9")
    metric = meteor.meteor_metric(["THIS IS A WHITE CHAIR"], [["this is a white chair"]])
    assert meteor.meteor_score(metric.statistics_QS)[0] == pytest.approx(100.0)


def test_meteor_without_java_is_unavailable_and_never_zero(monkeypatch):
    monkeypatch.setattr(meteor.shutil, "which", lambda name: None)
    metrics = caption_metrics(["a"], [["a"]], meteor=True)
    assert isinstance(metrics["meteor"], Unavailable)
    assert "needs Java" in metrics["meteor"].reason
    assert isinstance(metrics["cider"], Metric)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("echo 'Error: no heap' >&2; exit 1", r"status 1, 0 of 1 answers\): Error: no heap"),
        ("echo 1 2 x", "unreadable answer"),
        ("echo 1 2 3", "unknown form"),
    ],
)
def test_a_failing_meteor_program_is_unavailable(monkeypatch, tmp_path, program, message):
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\ncat > /dev/null\n{program}\n")
    java.chmod(0o755)
    monkeypatch.setattr(meteor.shutil, "which", lambda name: str(java))
    with pytest.raises(MachineError, match=message):
        meteor.meteor_metric(["a"], [["a"]])
    assert isinstance(caption_metrics(["a"], [["a"]], meteor=True)["meteor"], Unavailable)


def test_meteor_formula_by_hand():
    # 2 of 4 predicted and 2 of 2 true words match exactly, no function words, in 2 chunks.
    counts = np.zeros((1, meteor.COUNTS))
    counts[0, :2] = 4, 2
    counts[0, 4:6] = 2, 2
    counts[0, 20:] = 2, 2, 2
    precision, recall = 0.5, 1.0
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    assert meteor.meteor_score(counts)[0] == pytest.approx(100 * mean * (1 - 0.6))
    assert meteor.meteor_score(np.zeros((1, meteor.COUNTS)))[0] == 0.0


@pytest.mark.slow
@pytest.mark.skipif(meteor.shutil.which("java") is None, reason="METEOR needs Java")
def test_meteor_equals_what_the_java_program_prints():
    # Texts, and the scores that METEOR 1.5 itself prints for them, one by one and together.
    cases = [
        (
            "a brown chair stands near the table",
            ["there is a brown chair by the table", "the chair is brown"],
            0.38990869388166516,
        ),
        ("two ||| brown\nchairs", ["two chair brown"], 0.22857142857142856),
        ("table", ["a chair"], 0.0),
        ("a chair is next to it", ["it is a seat near it", "||| a stool"], 0.2180673777897584),
        ("the window", ["the window", ""], 1.0),
        ("", ["a chair"], 0.0),
    ]
    predictions, references, expected = zip(*cases, strict=True)
    ours = meteor.meteor_metric(predictions, references)
    for index, score in enumerate(expected):
        assert ours.of([index]).value() == pytest.approx(100 * score)
    assert ours.of(range(5)).value() == pytest.approx(100 * 0.2932734357299214)
