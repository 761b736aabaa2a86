"""The runs' colours, as readers with full and with red-green deficient sight tell them apart."""

from itertools import combinations

import numpy as np
import pytest

from threedrs.visualization.box_overlay import RUN_COLOURS

# Machado, Oliveira and Fernandes (2009), deuteranopia, on linear RGB.
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colour, sight):
    """CIE L*a*b* of a colour as a sight sees it."""
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = RGB_TO_XYZ @ np.clip(sight @ linear, 0, 1) / WHITE
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_the_conversion_by_known_values():
    assert lab("#FFFFFF", np.eye(3)) == pytest.approx([100, 0, 0], abs=0.02)
    assert lab("#FF0000", np.eye(3)) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)


# A difference of 2.3 is just noticeable side by side; 10 is plain at a glance.
@pytest.mark.parametrize(("sight", "least"), [(np.eye(3), 20), (DEUTERANOPIA, 12)])
def test_twelve_runs_can_be_told_apart(sight, least):
    assert len(RUN_COLOURS) == len(set(RUN_COLOURS)) == 12
    seen = [lab(colour, sight) for colour in RUN_COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= least
