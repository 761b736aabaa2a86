from pathlib import Path

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.scannet.geometry import axis_alignment, read_axis_alignment
from threedrs.scannet.layout import DataLayout

QUARTER_TURN = "0 -1 0 0.5  1 0 0 -2  0 0 1 0.25  0 0 0 1"


def write(folder: Path, text: str) -> Path:
    path = folder / "scene0000_00.txt"
    path.write_text(text)
    return path


def test_row_major_matrix_among_other_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"axisAlignment = {QUARTER_TURN} \ncolorHeight = 968\nsceneType = Living room = big\n",
    )
    alignment = read_axis_alignment(path)
    assert alignment.dtype == np.float64
    np.testing.assert_array_equal(
        alignment, [[0, -1, 0, 0.5], [1, 0, 0, -2], [0, 0, 1, 0.25], [0, 0, 0, 1]]
    )
    # The point one metre along x turns to y, then moves.
    np.testing.assert_allclose(alignment @ [1, 0, 0, 1], [0.5, -1, 0.25, 1])


def test_absent_key_is_identity(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read_axis_alignment(write(tmp_path, "colorHeight = 968\n")), np.eye(4)
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1 0 0", "3 numbers, expected 16"),
        (QUARTER_TURN.replace("0.25", "up"), "not a number"),
        (QUARTER_TURN.replace("0.25", "nan"), "not a rigid transform"),
        (QUARTER_TURN.replace("1 0 0 -2", "2 0 0 -2"), "not a rigid transform"),
        (QUARTER_TURN.replace("0 0 0 1", "0 0 0 0"), "not a rigid transform"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0 0 0 0 1", "not a rigid transform"),
    ],
)
def test_malformed_matrix_is_one_line(tmp_path: Path, value: str, message: str) -> None:
    path = write(tmp_path, f"axisAlignment = {value}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_axis_alignment(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_a_scan_without_mesh_may_lack_the_file(tmp_path: Path) -> None:
    scan = DataLayout(root=tmp_path).scan("scene0000_00")
    np.testing.assert_array_equal(axis_alignment(scan), np.eye(4))
    scan.mesh.parent.mkdir(parents=True)
    scan.mesh.write_bytes(b"ply")
    with pytest.raises(DataError, match=r"scene0000_00\.txt: cannot be read"):
        axis_alignment(scan)
