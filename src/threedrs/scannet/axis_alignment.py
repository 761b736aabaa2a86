"""A scan's ``<scene>.txt``: ``key = value`` lines, of which the axis alignment is used.

Reads one small text file.
"""

from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import read_text
from threedrs.scannet.layout import ScanFiles

# The published matrices are rotations about z printed with six decimals.
_RIGID_TOLERANCE = 1e-2
MOST_BYTES = 2**20  # ScanNet's have 1 kB


def read_axis_alignment(path: Path) -> np.ndarray:
    """Return the (4,4) f64 rigid transform from the scan's frame to the axis-aligned world, metres.

    A file without the key ``axisAlignment`` (ScanNet's test scans) gives the identity.

    Raises:
        DataError: the file is missing, or the value is not a rigid 4x4 transform.
    """
    values = _values(path)
    if "axisAlignment" not in values:
        return np.eye(4)
    try:
        numbers = [float(word) for word in values["axisAlignment"].split()]
    except ValueError as error:
        raise DataError(f"{path}: axisAlignment holds a value that is not a number") from error
    if len(numbers) != 16:
        raise DataError(f"{path}: axisAlignment has {len(numbers)} numbers, expected 16 (4x4)")
    alignment = np.array(numbers).reshape(4, 4)
    if not np.isfinite(alignment).all() or not _is_rigid(alignment):
        raise DataError(
            f"{path}: axisAlignment is not a rigid transform (rotation and translation, last row "
            "0 0 0 1); restore the file from ScanNet"
        )
    return alignment


def has_axis_alignment(path: Path) -> bool:
    """Whether the file has the key ``axisAlignment``. Raises DataError if it is missing."""
    return "axisAlignment" in _values(path)


def _values(path: Path) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in read_text(path, most=MOST_BYTES).splitlines():
        key, equals, value = line.partition("=")
        if equals:
            values[key.strip()] = value
    return values


def axis_alignment(scan: ScanFiles) -> np.ndarray:
    """Return the (4,4) f64 axis alignment of ``scan``.

    A scan with neither a ``.txt`` nor a mesh (a capture of the user's own, imported as a .sens) has
    its poses in the world frame already: identity.

    Raises:
        DataError: the file is malformed, or missing although the scan has a mesh.
    """
    if not scan.meta.exists() and not scan.mesh.exists():
        return np.eye(4)
    return read_axis_alignment(scan.meta)


def _is_rigid(transform: np.ndarray) -> bool:
    rotation = transform[:3, :3]
    return bool(
        np.abs(transform[3] - (0.0, 0.0, 0.0, 1.0)).max() <= _RIGID_TOLERANCE
        and np.abs(rotation @ rotation.T - np.eye(3)).max() <= _RIGID_TOLERANCE
        and np.linalg.det(rotation) > 0
    )
