"""Runs that give most questions of a benchmark one answer, which says more than their score.

`count_alike` counts when predictions are scored; the other functions read those counts in a
summary.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.registry import find_task

MOST_ALIKE = 0.5  # of a run's answers that may be alike before a line says so


def count_alike(task: Task, rows: Sequence[Prediction], *, not_asked: int = 0) -> dict[str, Any]:
    """Return how alike a run's answers are: its most frequent one, or how often it finds nothing.

    ``{"most_frequent": text, "count", "of"}`` of texts, ``{"no_object_first", "of"}`` of boxes.
    ``not_asked`` of the texts are empty because the model was not asked, as there is no detector
    box of the object.
    """
    if task.grounding:
        first = sum(
            row.scores is not None and int(np.argmax(row.scores)) == len(row.boxes) for row in rows
        )
        return {"no_object_first": first, "of": len(rows)}
    answers = Counter(row.prediction or "" for row in rows)
    answers[""] -= not_asked
    answers = +answers  # without those that nobody gave
    text, count = max(answers.items(), key=lambda item: item[1], default=("", 0))
    return {"most_frequent": text, "count": count, "of": answers.total()}


@dataclass(frozen=True, kw_only=True)
class AlikeAnswers:
    """The answer that a run gives to most questions of a benchmark."""

    benchmark: str  # which the page's link filters the questions by
    answer: str | None  # the text, "" where the run says nothing; None: "no object" ranks first
    said: str  # which answer, for a sentence
    counted: str  # how many questions, for its end
    decides: bool = True  # whether it is what is scored: the answer, not only what ranks first


def alike_answers(entry: Mapping[str, Any]) -> dict[str, AlikeAnswers]:
    """Return the benchmarks on which a run answers most questions alike, and what it answers."""
    results = entry.get("benchmarks", {}).items()
    found = {name: _alike(name, result.get("alike") or {}) for name, result in results}
    return {name: one for name, one in found.items() if one is not None}


def _alike(benchmark: str, counts: Mapping[str, Any]) -> AlikeAnswers | None:
    of, first = counts.get("of", 0), counts.get("no_object_first", 0)
    may_be_none = find_task(benchmark).objects == "any"
    if of and (first == of or (may_be_none and first > MOST_ALIKE * of)):
        said = '"no object" ranks first for'
        return AlikeAnswers(
            benchmark=benchmark,
            answer=None,
            # Where one box is always meant, the best box is taken whatever ranks before it.
            said=said if may_be_none else f"a box is taken although {said}",
            counted=f"all {of} questions" if first == of else f"{first} of {of} questions",
            decides=may_be_none,
        )
    if counts.get("count", 0) <= MOST_ALIKE * of:
        return None
    answer = counts["most_frequent"]
    text = " ".join(answer.split())
    shown = f'"{text}"' if len(text) <= 40 else f'"{text[:40]}..."'
    return AlikeAnswers(
        benchmark=benchmark,
        answer=answer,
        said=f"{shown} is the answer to" if text else "(no answer) to",
        counted=f"{counts['count']} of {of} questions",
    )


def alike_seeds(
    summary: Mapping[str, Any], runs: Sequence[str], benchmark: str
) -> dict[str, AlikeAnswers]:
    """Return those of the runs that answer most questions of a benchmark alike, and how."""
    found = {run: alike_answers(summary["runs"][run]) for run in runs}
    return {run: given[benchmark] for run, given in found.items() if benchmark in given}


def settings_that_answer_alike(
    summary: Mapping[str, Any],
) -> dict[str, list[tuple[str, dict[str, AlikeAnswers]]]]:
    """Return setting -> for each benchmark it and how many seeds, and run -> its answer."""
    settings: dict[str, list[tuple[str, dict[str, AlikeAnswers]]]] = {}
    for group in summary["groups"]:
        seeds = len(group["runs"])
        for benchmark in summary["benchmarks"]:
            if given := alike_seeds(summary, group["runs"], benchmark):
                several = f"{len(given)} of {seeds} seeds, " if seeds > 1 else ""
                head = f"{find_task(benchmark).title}: {several}"
                settings.setdefault(group["name"], []).append((head, given))
    return settings


def alike_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting that answers most questions of a benchmark alike."""
    sentences = []
    for name, found in settings_that_answer_alike(summary).items():
        parts = [
            head
            + ", ".join(
                f"{one.said} {one.counted}" + (f" ({run})" if len(given) > 1 else "")
                for run, one in given.items()
            )
            for head, given in found
        ]
        sentences.append(f"{name} answers most questions alike ({'; '.join(parts)}).")
    return sentences
