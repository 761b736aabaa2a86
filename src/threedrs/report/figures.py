"""Figures of the report as SVG text: radar, loss curves, bars.

Drawn by matplotlib on transparent ground, in tones that read on light and dark pages alike.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

TONE = "#808080"
COLOURS = ("#2a78d6", "#e07b00", "#2e9e4f", "#a24fc9", "#c9413a", "#0f9aa8")
STYLE: Any = {
    "axes.edgecolor": TONE,
    "axes.labelcolor": TONE,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.3,
    "grid.color": TONE,
    "legend.labelcolor": TONE,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "threedrs",
    "text.color": TONE,
    "xtick.color": TONE,
    "ytick.color": TONE,
}


def _svg(figure: plt.Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    # A fixed size would overflow narrow screens; the view box alone scales.
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def radar(axes: Sequence[str], series: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Return a radar chart; each axis is scaled to its largest value over the series."""
    values = np.array([[np.nan if v is None else v for v in row] for row in series.values()])
    top = np.nanmax(np.where(np.isnan(values), 0.0, values), axis=0)
    top[top <= 0] = 1.0
    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    with plt.rc_context(STYLE):
        figure, plot = plt.subplots(figsize=(5.5, 4.6), subplot_kw={"polar": True})
        for (name, _), row in zip(series.items(), values, strict=True):
            radius = np.nan_to_num(row / top)
            closed = np.append(radius, radius[0])
            plot.plot(np.append(angles, angles[0]), closed, label=name, linewidth=2)
            plot.fill(np.append(angles, angles[0]), closed, alpha=0.1)
        labels = [f"{axis}\n(max {limit:.1f})" for axis, limit in zip(axes, top, strict=True)]
        plot.set_xticks(angles, labels, fontsize=8)
        plot.set_yticks([0.25, 0.5, 0.75, 1.0], [])
        plot.set_ylim(0, 1.05)
        plot.tick_params(pad=14)
        plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)
        return _svg(figure, title)


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> str:
    """Return the loss parts of every run over optimizer steps."""
    parts = ("text", "grounding", "supervision")
    with plt.rc_context(STYLE):
        figure, plots = plt.subplots(1, len(parts), figsize=(10, 2.8))
        for plot, part in zip(plots, parts, strict=True):
            for run, rows in histories.items():
                points = [(row["step"], row[part]) for row in rows if row.get(part) is not None]
                # A run without a teacher has no supervision loss: its flat zero is left out.
                if points and any(value for _, value in points):
                    plot.plot(*zip(*points, strict=True), label=run)
            plot.set_title(f"{part} loss", fontsize=10, color=TONE)
            plot.set_xlabel("step")
            plot.grid(True)
            if plot.lines:
                plot.legend(frameon=False)
        figure.tight_layout()
        return _svg(figure, title)


def bars(groups: Sequence[str], series: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Return grouped horizontal bars: one group a name, one bar a series."""
    height = 0.8 / max(len(series), 1)
    with plt.rc_context(STYLE):
        figure, plot = plt.subplots(figsize=(5, 0.5 + 0.3 * len(groups) * max(len(series), 1)))
        for index, (name, row) in enumerate(series.items()):
            places = np.arange(len(groups)) + index * height
            plot.barh(places, [value or 0.0 for value in row], height=height * 0.9, label=name)
        plot.set_yticks(np.arange(len(groups)) + height * (len(series) - 1) / 2, groups)
        plot.invert_yaxis()
        plot.grid(True, axis="x")
        plot.set_title(title, fontsize=10, color=TONE)
        if len(series) > 1:
            plot.legend(frameon=False, fontsize=8)
        return _svg(figure, title)
