"""One picture of a mix before and after balancing: shares, scenes, types and answers.

Drawn by matplotlib; about two seconds.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from threedrs.io.files import atomic_file
from threedrs.tasks.record import GROUND

BEFORE, AFTER = "#9a9a9a", "#2a78d6"
SHOWN_ANSWERS = 15
SHOWN_TYPES = 18
Side = Mapping[str, Any]


def draw_pictures(before: Side, after: Side, title: str, out: Path) -> None:
    """Write the picture as PNG, whole or not at all.

    Args:
        before: `threedrs.instructions.mix.describe` of all records, with ``scene_counts`` and
            ``word_counts`` beside it.
        after: the same of the mix.
        title: the mix's name and how it was drawn.
        out: the .png file.
    """
    figure, axes = plt.subplots(2, 3, figsize=(16, 9.5), layout="constrained")
    figure.suptitle(title)
    _shares(axes[0, 0], before, after)
    _scenes(axes[0, 1], before, after)
    _words(axes[0, 2], before, after)
    _types(axes[1, 0], before, after)
    _answers(axes[1, 1], before, after)
    _text(axes[1, 2], before, after)
    with atomic_file(out) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)


def _bars(
    axes: Axes, names: list[str], before: list[float], after: list[float], label: str
) -> None:
    places = np.arange(len(names))
    axes.barh(places - 0.2, before, 0.4, color=BEFORE, label="before")
    axes.barh(places + 0.2, after, 0.4, color=AFTER, label="after")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.legend()


def _percent(count: float, total: float) -> float:
    return 100 * count / total


def _shares(axes: Axes, before: Side, after: Side) -> None:
    names = list(before["benchmarks"])
    _bars(
        axes,
        names,
        [_percent(before["benchmarks"][name], before["samples"]) for name in names],
        [_percent(after["benchmarks"].get(name, 0), after["samples"]) for name in names],
        "% of the samples",
    )
    axes.set_title("Share per benchmark")


def _steps(axes: Axes, before: np.ndarray, after: np.ndarray, label: str) -> None:
    top = int(max(before.max(), after.max()))
    step = max(1, math.ceil(top / 40))
    edges = [start - 0.5 for start in range(0, top + step + 1, step)]
    for values, colour, name in ((before, BEFORE, "before"), (after, AFTER, "after")):
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, edges, weights=weights, color=colour, alpha=0.6, label=name)
    axes.set_xlabel(label)
    axes.legend()


def _scenes(axes: Axes, before: Side, after: Side) -> None:
    _steps(axes, before["scene_counts"], after["scene_counts"], "samples of a scene")
    axes.set_ylabel("% of the scenes")
    axes.set_title("Samples per scene")


def _words(axes: Axes, before: Side, after: Side) -> None:
    _steps(axes, before["word_counts"], after["word_counts"], "words")
    axes.set_ylabel("% of the samples")
    axes.set_title(f"Answer lengths ({GROUND} counts as one word)")


def _types(axes: Axes, before: Side, after: Side) -> None:
    counts = {
        (name, kind): count
        for name, kinds in before["question_types"].items()
        for kind, count in kinds.items()
    }
    largest = sorted(counts, key=lambda key: -counts[key])[:SHOWN_TYPES]
    keys = [key for key in counts if key in largest]
    _bars(
        axes,
        [f"{name}: {kind}" for name, kind in keys],
        [_percent(counts[key], before["samples"]) for key in keys],
        [
            _percent(after["question_types"].get(name, {}).get(kind, 0), after["samples"])
            for name, kind in keys
        ],
        "% of the samples",
    )
    axes.set_title("Question types")


def _answers(axes: Axes, before: Side, after: Side) -> None:
    counts: dict[tuple[str, str], list[float]] = {}
    for side, place in ((before, 0), (after, 1)):
        for name, answers in side["top_answers"].items():
            for row in answers:
                if row["answer"] != GROUND:
                    found = counts.setdefault((name, row["answer"]), [0.0, 0.0])
                    found[place] = _percent(row["samples"], side["samples"])
    keys = sorted(counts, key=lambda key: -max(counts[key]))[:SHOWN_ANSWERS]
    if keys:
        _bars(
            axes,
            [f"{name}: {answer:.24}" for name, answer in keys],
            [counts[key][0] for key in keys],
            [counts[key][1] for key in keys],
            "% of the samples (0: not among its benchmark's twenty)",
        )
    axes.set_title("Most frequent answers")


def _text(axes: Axes, before: Side, after: Side) -> None:
    axes.axis("off")
    rows = [["", "before", "after"]]
    rows.append(["samples", f"{before['samples']:,}", f"{after['samples']:,}"])
    rows.append(["scenes", f"{before['scenes']:,}", f"{after['scenes']:,}"])
    for name, count in before["benchmarks"].items():
        rows.append([name, f"{count:,}", f"{after['benchmarks'].get(name, 0):,}"])
    table = axes.table(rows, loc="center", cellLoc="right", edges="horizontal")
    table.scale(1, 1.6)
