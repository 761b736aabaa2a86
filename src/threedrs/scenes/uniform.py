"""Evenly spaced frames: the paper's choice."""

import numpy as np


def uniform_indices(n: int, count: int) -> list[int]:
    """Return ``count`` indices evenly spaced over 0..n-1: linspace truncated to whole numbers.

    With fewer than ``count`` candidates, indices repeat, as in the published method.

    Raises:
        ValueError: there is nothing to choose from, or nothing to choose.
    """
    if n < 1 or count < 1:
        raise ValueError(f"cannot choose {count} frames from {n}")
    return np.linspace(0, n - 1, count).astype(int).tolist()
