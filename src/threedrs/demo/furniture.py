"""Furniture from a few primitive parts, in a piece's own frame.

Own frame: metres, origin on the floor (or on what carries the piece) under the piece's middle,
x across its width, z up, and +y its front, the side a person uses. Every builder fills exactly
the size it is given, so that the box of the parts is the box of the piece.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from threedrs.demo.room_objects import (
    DARK,
    LINEN,
    METAL,
    PALETTE,
    Part,
    Rgb,
    box,
    cylinder,
    drawers,
    legs,
    pad,
    tint,
)

Builder = Callable[[float, float, float, Rgb, np.random.Generator], list[Part]]


def _chair(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    seat = 0.5 * h
    return [
        *legs(w, d, seat - 0.05, 0.045, DARK),
        box(0, 0, seat - 0.05, w, d, 0.06, rgb),
        box(0, -d / 2 + 0.03, seat + 0.01, w * 0.94, 0.06, h - seat - 0.01, rgb),
    ]


def _office_chair(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    seat = 0.48 * h
    return [
        box(0, 0, 0.02, w, 0.06, 0.05, METAL),
        box(0, 0, 0.02, 0.06, d, 0.05, METAL),
        cylinder(0.0, 0.09, 0.02, DARK),
        cylinder(0.07, 0.06, seat - 0.11, METAL),
        box(0, 0.02, seat - 0.04, w * 0.86, d * 0.82, 0.08, rgb),
        box(0, -d * 0.36, seat + 0.1, w * 0.8, 0.07, h - seat - 0.1, rgb),
        box(0, -d * 0.38, seat, 0.06, 0.04, 0.12, DARK),
        *[box(s * w * 0.43, 0, seat + 0.18, 0.05, d * 0.5, 0.03, DARK) for s in (-1, 1)],
        *[box(s * w * 0.43, -0.02, seat, 0.04, 0.05, 0.18, DARK) for s in (-1, 1)],
    ]


def _couch(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    arm, back, seat = 0.18, 0.22, 0.42
    inner = w - 2 * arm
    cushions = max(1, round(inner / 0.7))
    each = inner / cushions
    middles = [-inner / 2 + each * (number + 0.5) for number in range(cushions)]
    cushion = (each - 0.02, d - back - 0.02, seat - 0.26, tint(rgb, 1.1))
    return [
        box(0, 0, 0, w, d, 0.26, rgb),
        box(0, -d / 2 + back / 2, 0.26, inner, back, h - 0.26, rgb),
        box(-w / 2 + arm / 2, 0, 0.26, arm, d, 0.34, rgb),
        box(w / 2 - arm / 2, 0, 0.26, arm, d, 0.34, rgb),
        *[box(x, back / 2, 0.26, *cushion) for x in middles],
    ]


def _table(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        *legs(w - 0.08, d - 0.08, h - 0.05, 0.07, tint(rgb, 0.8)),
        box(0, 0, h - 0.05, w, d, 0.05, rgb),
    ]


def _coffee_table(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        *legs(w - 0.04, d - 0.04, h - 0.05, 0.06, tint(rgb, 0.8)),
        box(0, 0, h * 0.3, w - 0.1, d - 0.1, 0.03, tint(rgb, 0.9)),
        box(0, 0, h - 0.05, w, d, 0.05, rgb),
    ]


def _desk(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    block = 0.4
    return [
        box(0, 0, h - 0.05, w, d, 0.05, rgb),
        box(-w / 2 + 0.03, 0, 0, 0.05, d - 0.06, h - 0.05, tint(rgb, 0.85)),
        box(w / 2 - block / 2 - 0.01, -0.03, 0, block, d - 0.08, h - 0.05, tint(rgb, 0.85)),
        box(-block / 2, -d / 2 + 0.05, h * 0.45, w - block - 0.06, 0.03, h * 0.5, tint(rgb, 0.8)),
        *drawers(w / 2 - block / 2 - 0.01, d / 2 - 0.005, 0.04, block, h - 0.1, 3, 1, rgb),
    ]


def _cabinet(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    doors = 2 if w > 0.6 else 1
    parts = [box(0, -0.0225, 0, w, d - 0.045, h, rgb)]
    for number in range(doors):
        x = -w / 2 + w / doors * (number + 0.5)
        parts.append(box(x, d / 2 - 0.035, 0.06, w / doors - 0.03, 0.02, h - 0.1, tint(rgb, 1.18)))
        side = 1 if doors == 1 or number == 0 else -1
        handle = x + side * (w / doors / 2 - 0.06)
        parts.append(box(handle, d / 2 - 0.0125, h * 0.45, 0.02, 0.025, min(0.2, h * 0.2), METAL))
    return parts


def _dresser(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    columns = 2 if w > 0.75 else 1
    rows = max(2, round(h / 0.28))
    return [
        box(0, -0.0225, 0, w, d - 0.045, h, rgb),
        *drawers(0, d / 2, 0.05, w - 0.04, h - 0.08, rows, columns, rgb),
    ]


def _bookshelf(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    thickness = 0.035
    shelves = max(3, round(h / 0.36))
    parts = [
        box(-w / 2 + thickness / 2, 0, 0, thickness, d, h, rgb),
        box(w / 2 - thickness / 2, 0, 0, thickness, d, h, rgb),
        box(0, -d / 2 + 0.01, 0, w - 2 * thickness, 0.02, h, tint(rgb, 0.7)),
    ]
    pitch = (h - thickness) / shelves
    inks = list(PALETTE.values())
    for number in range(shelves + 1):
        parts.append(box(0, 0.01, number * pitch, w - 2 * thickness, d - 0.02, thickness, rgb))
        x = -w / 2 + thickness + 0.02
        while number < shelves and x < w / 2 - 0.16:
            wide = float(rng.uniform(0.05, 0.13))
            high = float(rng.uniform(0.55, 0.85)) * (pitch - thickness)
            if rng.random() < 0.8:
                ink, z = tint(inks[rng.integers(len(inks))], 0.8), number * pitch + thickness
                parts.append(box(x + wide / 2, -0.03, z, wide - 0.008, d * 0.66, high, ink))
            x += wide
    return parts


def _bed(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        box(0, -d / 2 + 0.03, 0, w, 0.06, h, tint(rgb, 0.8)),
        box(0, 0.03, 0.08, w, d - 0.06, 0.2, tint(rgb, 0.8)),
        *legs(w, d, 0.08, 0.07, DARK),
        box(0, 0.02, 0.28, w - 0.04, d - 0.1, 0.2, LINEN),
        box(0, d * 0.15 + 0.005, 0.29, w - 0.01, d * 0.68, 0.215, rgb),
    ]


def _nightstand(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        *legs(w, d - 0.045, 0.1, 0.04, DARK),
        box(0, -0.0225, 0.1, w, d - 0.045, h - 0.1, rgb),
        *drawers(0, d / 2, 0.12, w - 0.02, h - 0.16, 2, 1, rgb),
    ]


def _lamp(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    shade = min(0.32, h * 0.4)
    return [
        cylinder(0, w * 0.7, 0.03, DARK),
        cylinder(0.03, 0.03, h - shade - 0.01, METAL),
        Part(
            shape="cylinder", centre=(0, 0, h - shade / 2), size=(w, d, shade), rgb=rgb, taper=1.6
        ),
    ]


def _trash_can(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        cylinder(0, w - 0.03, h - 0.04, rgb, taper=0.82),
        cylinder(h - 0.04, w, 0.04, tint(rgb, 0.75)),
    ]


def _refrigerator(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    split = h * 0.62
    return [
        box(0, -0.04, 0, w, d - 0.08, h, tint(rgb, 0.85)),
        box(0, d / 2 - 0.055, 0.04, w - 0.01, 0.05, split - 0.05, rgb),
        box(0, d / 2 - 0.055, split + 0.01, w - 0.01, 0.05, h - split - 0.02, rgb),
        box(-w * 0.4, d / 2 - 0.015, split - 0.45, 0.03, 0.03, 0.35, METAL),
        box(-w * 0.4, d / 2 - 0.015, split + 0.06, 0.03, 0.03, 0.28, METAL),
    ]


def _monitor(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        box(0, 0, 0, w * 0.4, d, 0.02, rgb),
        box(0, -0.03, 0.02, 0.05, 0.04, h * 0.4, rgb),
        box(0, 0, h * 0.22, w, 0.05, h * 0.78, rgb),
        box(0, 0.028, h * 0.22 + 0.025, w - 0.05, 0.008, h * 0.78 - 0.05, (70, 100, 120)),
    ]


def _carton(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        box(0, 0, 0, w - 0.02, d - 0.02, h - 0.05, rgb),
        box(0, 0, h - 0.05, w, d, 0.05, tint(rgb, 0.82)),
    ]


def _pillow(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [pad(0, 0, 0, w, d, h, rgb)]


def _stool(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [*legs(w * 0.7, d * 0.7, h - 0.06, 0.04, DARK), cylinder(h - 0.06, w, 0.06, rgb)]


def _ottoman(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        *legs(w - 0.06, d - 0.06, 0.08, 0.05, DARK),
        box(0, 0, 0.08, w, d, h - 0.16, rgb),
        pad(0, 0, h - 0.16, w, d, 0.16, tint(rgb, 1.1)),
    ]


def _door(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        box(-w / 2 + 0.04, -0.01, 0, 0.08, d - 0.02, h, LINEN),
        box(w / 2 - 0.04, -0.01, 0, 0.08, d - 0.02, h, LINEN),
        box(0, -0.01, h - 0.08, w - 0.16, d - 0.02, 0.08, LINEN),
        box(0, -0.015, 0, w - 0.16, d - 0.03, h - 0.08, rgb),
        box(w / 2 - 0.17, 0, 0.98, 0.1, d, 0.03, METAL),
    ]


def _window(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    return [
        box(0, -0.01, 0, w, d - 0.02, h, (188, 214, 232)),
        *[box(s * (w / 2 - 0.03), 0, 0, 0.06, d, h, rgb) for s in (-1, 1)],
        *[box(0, 0, z, w - 0.12, d, 0.06, rgb) for z in (0, h - 0.06)],
        box(0, 0, 0.06, 0.04, d, h - 0.12, rgb),
    ]


def _picture(w: float, d: float, h: float, rgb: Rgb, rng: np.random.Generator) -> list[Part]:
    inks = list(PALETTE.values())
    ink = tint(inks[rng.integers(len(inks))], 0.9)
    wide, high = w * float(rng.uniform(0.3, 0.5)), h * float(rng.uniform(0.3, 0.5))
    return [
        box(0, -0.005, 0, w, d - 0.01, h, rgb),
        box(0, 0, 0.05, w - 0.1, d - 0.004, h - 0.1, LINEN),
        box(0, 0, (h - high) / 2, wide, d, high, ink),
    ]


@dataclass(frozen=True)
class Kind:
    """A class of furniture, by ScanNet's raw category: its builder, and the sizes it comes in.

    ``low`` and ``high``: least and greatest (width, depth, height) in metres. ``has_front``: left,
    right and in front of it are defined.
    """

    build: Builder
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    has_front: bool = True


KINDS: dict[str, Kind] = {
    "chair": Kind(_chair, (0.42, 0.44, 0.82), (0.5, 0.52, 0.98)),
    "office chair": Kind(_office_chair, (0.56, 0.56, 0.9), (0.62, 0.62, 1.05)),
    "armchair": Kind(_couch, (0.78, 0.74, 0.78), (0.92, 0.84, 0.92)),
    "couch": Kind(_couch, (1.6, 0.82, 0.78), (2.1, 0.92, 0.9)),
    "table": Kind(_table, (1.1, 0.75, 0.7), (1.6, 0.95, 0.78), False),
    "coffee table": Kind(_coffee_table, (0.8, 0.5, 0.38), (1.1, 0.6, 0.46), False),
    "desk": Kind(_desk, (1.15, 0.6, 0.7), (1.5, 0.72, 0.78)),
    "cabinet": Kind(_cabinet, (0.5, 0.4, 0.75), (1.1, 0.5, 1.5)),
    "dresser": Kind(_dresser, (0.7, 0.45, 0.75), (1.15, 0.52, 1.1)),
    "bookshelf": Kind(_bookshelf, (0.7, 0.3, 1.4), (1.1, 0.36, 2.0)),
    "bed": Kind(_bed, (1.1, 1.95, 0.85), (1.6, 2.1, 1.1)),
    "nightstand": Kind(_nightstand, (0.4, 0.4, 0.48), (0.5, 0.46, 0.6)),
    "lamp": Kind(_lamp, (0.34, 0.34, 1.45), (0.42, 0.42, 1.75), False),
    "trash can": Kind(_trash_can, (0.28, 0.28, 0.32), (0.36, 0.36, 0.5), False),
    "refrigerator": Kind(_refrigerator, (0.6, 0.62, 1.55), (0.75, 0.7, 1.85)),
    "monitor": Kind(_monitor, (0.46, 0.18, 0.36), (0.62, 0.2, 0.45)),
    "box": Kind(_carton, (0.28, 0.24, 0.18), (0.42, 0.36, 0.36), False),
    "pillow": Kind(_pillow, (0.42, 0.3, 0.12), (0.52, 0.38, 0.17), False),
    "stool": Kind(_stool, (0.34, 0.34, 0.45), (0.4, 0.4, 0.68), False),
    "ottoman": Kind(_ottoman, (0.5, 0.46, 0.4), (0.64, 0.56, 0.46), False),
    "door": Kind(_door, (0.9, 0.05, 2.02), (0.98, 0.05, 2.08)),
    "window": Kind(_window, (0.9, 0.04, 0.9), (1.4, 0.04, 1.1)),
    "picture": Kind(_picture, (0.45, 0.03, 0.4), (0.8, 0.03, 0.6)),
}
