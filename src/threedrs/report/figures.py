"""The geometry of the report's figures, which the page's templates draw.

Text and lines take the page's colours, so that they read in light and dark alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from threedrs.visualization.templates import data_uri

# Published methods are no runs, so they have none of the runs' colours.
GREYS = ("#808088", "#a9a9b2")
# Pixels of a strip's image, which is shown at half its size.
STRIP_WIDTH, LANE, DOT = 720, 44, 7


@dataclass(frozen=True, kw_only=True)
class RadarAxis:
    """An axis: its name, the value at its tip, and the direction of the tip, downwards positive."""

    name: str
    end: float
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class RadarLine:
    """What a radar shows of a run or method: an SVG path, and the corners of the area in it."""

    name: str
    colour: str
    path: str
    area: str


@dataclass(frozen=True, kw_only=True)
class Radar:
    """A radar chart of radius 100."""

    title: str
    axes: Sequence[RadarAxis]
    lines: Sequence[RadarLine]


def radar(
    axes: Mapping[str, float],
    series: Mapping[str, Sequence[float | None]],
    colours: Mapping[str, str],
    title: str,
) -> Radar:
    """Return a radar chart of ``series``, whose ``axes`` have a name and the value at the tip.

    A missing value leaves a gap in the line.
    """
    angles_A = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    tips_A2 = np.stack([np.sin(angles_A), -np.cos(angles_A)], axis=1)
    ends_A = np.array(list(axes.values()))
    greys, lines = iter(GREYS), []
    for name, row in series.items():
        corners_A2 = 100 * tips_A2 * (np.array(row, dtype=float) / ends_A)[:, None]
        edges = zip(corners_A2, np.roll(corners_A2, -1, axis=0), strict=True)
        path = "".join(
            f"M{_point(first)}L{_point(second)}"
            for first, second in edges
            if not np.isnan([first, second]).any()
        )
        area = " ".join(map(_point, np.nan_to_num(corners_A2)))
        colour = colours.get(name) or next(greys)
        lines.append(RadarLine(name=name, colour=colour, path=path, area=area))
    named = [
        RadarAxis(name=name, end=end, x=float(tip[0]), y=float(tip[1]))
        for (name, end), tip in zip(axes.items(), tips_A2, strict=True)
    ]
    return Radar(title=title, axes=named, lines=lines)


def _point(place: np.ndarray) -> str:
    return f"{place[0]:.1f},{place[1]:.1f}"


def room_strip(runs: Mapping[str, np.ndarray], end: float, colours: Mapping[str, str]) -> str:
    """Return a strip of dots from ``-end`` to ``end``, one a room, a lane a run, as a data URI.

    An image, as thousands of dots would be larger than the rest of the page.
    """
    spread = np.random.default_rng(0)
    image = Image.new("RGBA", (STRIP_WIDTH, LANE * len(runs)))
    draw = ImageDraw.Draw(image)
    for lane, (run, values) in enumerate(runs.items()):
        columns = STRIP_WIDTH / 2 + values / end * (STRIP_WIDTH / 2 - DOT)
        # Dots of a run do not hide each other: they lie apart, and each has its outline.
        rows = LANE * (lane + spread.uniform(0.2, 0.8, len(values)))
        for place in zip(columns.tolist(), rows.tolist(), strict=True):
            draw.circle(place, DOT, fill=f"{colours[run]}70", outline=colours[run], width=2)
    return data_uri(image, "PNG")
