"""Controls: what a model scores without its images, or with another room's.

A control (``eval.controls``) asks the trained models of a run once more. Its rows stand among those
of answers that need no look at the room. What a model loses without its images is the part of its
score that is looking. Both answers are of the same models and questions, so the difference is taken
room by room and training by training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.evaluation import compare
from threedrs.metrics.setting_difference import paired_spread
from threedrs.tasks.base import Column
from threedrs.tasks.registry import find_task
from threedrs.visualization.templates import signed

WITHOUT_IMAGES = "text_only"
# Control of ``eval.controls`` -> the name of its rows, and how their answers were made.
CONTROLS = {
    WITHOUT_IMAGES: ("no images", "The same questions without images, asked of the same models."),
    "other_room": (
        "other room",
        "The same questions with another room's images, asked of the same models.",
    ),
}


def looking(
    runs: Sequence[compare.PerQuestion], controls: Sequence[compare.PerQuestion]
) -> dict[str, dict[str, float | None]]:
    """Return metric -> ``difference`` with images minus without, and its 95 % interval, points.

    ``low`` and ``high`` are None where all questions are of one room. ``runs`` are the trainings of
    one setting, ``controls`` the same in the same order, asked as a control.

    Raises:
        DataError: they are not of the same questions.
    """
    scenes = controls[0].scenes
    found: dict[str, dict[str, float | None]] = {}
    for name, sides in compare.shared_metrics(runs, controls):
        with_images, without = (np.mean([metric.value() for metric in side]) for side in sides)
        low = high = None
        if len(set(scenes)) > 1:
            mine_NCS, other_NCS = (compare.room_sums(side, scenes) for side in sides)
            spread = paired_spread(mine_NCS, other_NCS, sides[0][0].combine)
            low, high = spread.interval()
        found[name] = {"difference": float(with_images - without), "low": low, "high": high}
    return found


def read_looking(
    runs: Sequence[str],
    files: Mapping[tuple[str, str, str], Path],
    questions: Mapping[tuple[str, str], compare.PerQuestion],
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return benchmark -> `looking` of a setting's runs, from the files beside the metrics' files.

    ``files`` are the ``metrics.json`` of (run, benchmark, control), ``questions`` those of the runs
    as they are.
    """
    asked = dict.fromkeys(
        benchmark for run, benchmark, control in files if control == WITHOUT_IMAGES and run in runs
    )
    return {
        benchmark: looking(
            [questions[run, benchmark] for run in runs],
            [
                compare.read_per_question(
                    files[run, benchmark, WITHOUT_IMAGES].with_name(compare.FILE_NAME),
                    find_task(benchmark),
                )
                for run in runs
            ],
        )
        for benchmark in asked
        if all((run, benchmark) in questions for run in runs)
    }


def sentences_of_looking(summary: Mapping[str, Any], columns: Sequence[Column]) -> list[str]:
    """Return how much of each setting's score is looking, or how to find out."""
    sentences = []
    for group in summary["groups"]:
        gains = []
        for column in columns:
            gain = group["looking"].get(column.benchmark, {}).get(column.metric)
            if gain is None:
                continue
            said = f"{column.full_title} {signed(gain['difference'])} points"
            if gain["low"] is not None:
                said += f" (95 % interval {signed(gain['low'])} to {signed(gain['high'])})"
            gains.append(said)
        if gains:
            one = " The interval is over rooms, of this one training."
            sentences.append(
                f"What the images add to {group['name']}: {'; '.join(gains)}."
                + (one if len(group["runs"]) == 1 else "")
            )
    tasks = [find_task(name) for name in dict.fromkeys(column.benchmark for column in columns)]
    worded = [task.title for task in tasks if not task.grounding]
    if sentences or not worded:
        return sentences
    return [
        f"How much of the scores on {', '.join(worded)} comes from the images is not known. "
        "eval.controls: [text_only] asks the same models without them."
    ]
