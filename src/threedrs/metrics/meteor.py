"""METEOR 1.5 (Denkowski and Lavie, 2014), through the Java program that pycocoevalcap carries.

The program aligns each prediction with its best reference and prints 23 counts a question; the
score of a set of questions is a closed formula of their sums, evaluated here for all resamples at
once. One process, all questions on its standard input, all counts read back: about 8 s to load its
paraphrase table, then some 1,000 references a second. Needs `java` on the path and 2 GB.
"""

import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threedrs.errors import MachineError
from threedrs.metrics.bootstrap import Metric
from threedrs.workflow.processes import run_text

TIMEOUT_SECONDS = 1800
COUNTS = 23
# METEOR 1.5's tuned parameters for English, and the weights of its four matchers: exact, stem,
# synonym, paraphrase.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MATCHER_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def _one_line(text: str) -> str:
    """Return the text on one line and without the separator of the program's protocol."""
    return " ".join(text.replace("|||", " ").split())


def meteor_metric(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Return METEOR as a function of summed counts, whose columns `meteor_score` names.

    Raises:
        MachineError: there is no Java, or the program failed.
    """
    import pycocoevalcap

    java = shutil.which("java")
    if java is None:
        raise MachineError("METEOR needs Java: install a Java runtime so that `java` is found")
    lines = []
    for text, texts in zip(predictions, references, strict=True):
        truths = [truth for truth in map(_one_line, texts) if truth]
        lines.append(" ||| ".join(["SCORE", *truths, _one_line(text)]))
    folder = Path(next(iter(pycocoevalcap.__path__))) / "meteor"
    # It lowers letters by Java's locale, and in Turkish an I becomes another letter than i.
    locale = ["-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8"]
    # One thread for the garbage: several take twice the memory and no second less.
    command = [java, "-Xmx2G", "-XX:+UseSerialGC", *locale, "-jar", "meteor-1.5.jar"]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    try:
        # One process for all questions, since loading its tables takes eight seconds.
        said = "\n".join(lines) + "\n"
        finished = run_text(*command, seconds=TIMEOUT_SECONDS, said=said, folder=folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"METEOR's Java program did not finish ({error})") from error
    answers = finished.stdout.splitlines()
    if finished.returncode != 0 or len(answers) != len(lines):
        reason = finished.stderr.strip().splitlines()[-1:] or ["no message"]
        raise MachineError(
            f"METEOR's Java program failed (status {finished.returncode}, {len(answers)} of "
            f"{len(lines)} answers): {reason[0]}"
        )
    try:
        counts_QS = np.array([line.split() for line in answers], dtype=np.float64)
    except ValueError as error:
        raise MachineError(f"METEOR's Java program gave an unreadable answer ({error})") from error
    if counts_QS.shape != (len(lines), COUNTS) or not math.isfinite(counts_QS.sum()):
        raise MachineError("METEOR's Java program gave an answer of an unknown form")
    # A perfect match is one chunk without a penalty; the program leaves its chunk out of sums.
    perfect = (
        (counts_QS[:, 20] == 1)
        & (counts_QS[:, 21] == counts_QS[:, 0])
        & (counts_QS[:, 22] == counts_QS[:, 1])
    )
    counts_QS[perfect, 20] = 0
    return Metric(statistics_QS=counts_QS, combine=meteor_score)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def meteor_score(sums_RS: np.ndarray) -> np.ndarray:
    """Return METEOR (percent) of each row of summed counts, (R, 23) to (R,).

    Columns: length of prediction and reference, function words in each; per matcher the matched
    content words of prediction and reference, then the matched function words of each; chunks;
    matched words of each.
    """
    length_P, length_R, function_P, function_R = sums_RS[:, :4].T
    matches_R44 = sums_RS[:, 4:20].reshape(-1, 4, 4)
    content_P, content_R, functional_P, functional_R = np.einsum(
        "rms,m->sr", matches_R44, MATCHER_WEIGHTS
    )
    precision = _divide(
        DELTA * content_P + (1 - DELTA) * functional_P,
        DELTA * (length_P - function_P) + (1 - DELTA) * function_P,
    )
    recall = _divide(
        DELTA * content_R + (1 - DELTA) * functional_R,
        DELTA * (length_R - function_R) + (1 - DELTA) * function_R,
    )
    mean = _divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    chunks, matched_P, matched_R = sums_RS[:, 20:].T
    fragmentation = _divide(chunks, (matched_P + matched_R) / 2)
    return 100.0 * mean * (1 - GAMMA * fragmentation**BETA)
