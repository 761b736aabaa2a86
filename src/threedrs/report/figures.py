"""Figures of the report as SVG text: radars and strips of rooms.

Drawn by matplotlib on transparent ground. Text and lines take the page's text colour, so they read
in light and dark alike; each figure keeps its natural width and shrinks where the page is narrower.
"""

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np

INK = "#123456"  # stands for the page's text colour, put in when the figure is text
PIXELS_PER_POINT = 1.3
RUN_PREFIX = "run:"  # of the names of what a figure draws of a run
STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "threedrs",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in an answer is a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
}


def _svg(figure: plt.Figure, title: str) -> str:
    """Return the figure as SVG for a page: a label for screen readers, no size in pixels."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Names of groups repeat from figure to figure; a page must not hold an id twice. Those of runs
    # stay, for the legend.
    text = re.sub(rf'<g id="{RUN_PREFIX}([^"]*)">', r'<g data-run="\1">', text)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    # What is left (markers, clip paths) is named after its content: make it the figure's own.
    own = hashlib.sha256((title + text).encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", text)
    width = re.search(r'width="([\d.]+)pt"', text)
    assert width is not None
    shown = float(width.group(1)) * PIXELS_PER_POINT
    text = re.sub(r'(<svg [^>]*?)(height|width)="[^"]*" ', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)(height|width)="[^"]*" ', r"\1", text, count=1)
    label = html.escape(title, quote=True)
    opening = f'<svg role="img" aria-label="{label}" style="width:min(100%,{shown:.0f}px)" '
    return text.replace("<svg ", opening, 1)


def radar(
    axes: Mapping[str, float],
    series: Mapping[str, Sequence[float | None]],
    colours: Mapping[str, str],
    title: str,
) -> str:
    """Return a radar chart of ``series``, whose ``axes`` have a name and the value at the tip.

    A missing value leaves a gap.
    """
    values = np.array([[np.nan if v is None else v for v in row] for row in series.values()])
    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    with plt.rc_context(STYLE):
        figure, plot = plt.subplots(figsize=(3.4, 3.4), subplot_kw={"polar": True})
        # Published methods are no runs, so they have none of the runs' colours.
        others = iter(("#5c5c63", "#a9a9b2"))
        for name, row in zip(series, values, strict=True):
            radius = row / np.array(list(axes.values()))
            closed, colour = np.append(radius, radius[0]), colours.get(name) or next(others)
            around = np.append(angles, angles[0])
            line = plot.plot(
                around, closed, label=name, color=colour, linewidth=2, marker="o", ms=3
            )
            area = plot.fill(around, np.nan_to_num(closed), color=colour, alpha=0.1)
            for part in (*line, *area):
                part.set_gid(f"{RUN_PREFIX}{name}")
        labels = [f"{axis}\n{tip:.1f}" for axis, tip in axes.items()]
        plot.set_xticks(angles, labels, fontsize=8)
        plot.set_yticks([0.25, 0.5, 0.75, 1.0], [])
        plot.set_ylim(0, 1.05)
        plot.tick_params(pad=12)
        plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        return _svg(figure, title)


def room_strip(
    scales: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    colours: Mapping[str, str],
    title: str,
) -> str:
    """Return a strip of dots for each metric, one dot a room and run, in the run's colour.

    Args:
        scales: name of a scale to metric to run to the differences in each room.
        colours: run to its colour.
        title: what the figure shows.
    """
    spread = np.random.default_rng(0)
    counts = [len(rows) for rows in scales.values()]
    with plt.rc_context(STYLE):
        figure, plots = plt.subplots(
            len(scales),
            figsize=(4.2, 0.6 * len(scales) + 0.3 * sum(counts)),
            height_ratios=counts,
            squeeze=False,
            layout="constrained",
        )
        for plot, (scale, rows) in zip(plots[:, 0], scales.items(), strict=True):
            plot.axvline(0, color=INK, linewidth=1)
            plot.set_ylim(len(rows) - 0.5, -0.5)
            plot.grid(True, axis="x")
            plot.set_xlabel(f"difference, {scale}")
            for place, runs in enumerate(rows.values()):
                for number, (run, values) in enumerate(runs.items()):
                    # Runs lie beside each other, and dots of a run do not hide each other.
                    middle = place + ((number + 0.5) / len(runs) - 0.5) * 0.7
                    heights = middle + spread.uniform(-0.25, 0.25, len(values)) / len(runs)
                    # As an image: thousands of dots would be larger than the rest of the page.
                    plot.plot(
                        values, heights, ".", color=colours[run], ms=3, alpha=0.6, rasterized=True
                    )
            plot.set_yticks(range(len(rows)), list(rows))
        return _svg(figure, title)
