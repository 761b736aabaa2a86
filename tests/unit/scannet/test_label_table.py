"""ScanNet's label table and ScanRefer's classes."""

from pathlib import Path

import pytest

from threedrs.errors import DataError
from threedrs.scannet.label_table import benchmark_class, read_label_table

HEADER = "id\traw_category\tcategory\tcount\tnyu40id\teigen13id\n"


def write_table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "labels.tsv"
    path.write_text(header + "".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def test_reads_categories(tmp_path: Path) -> None:
    path = write_table(
        tmp_path,
        "1\twall\twall\t8277\t1\t12",
        "2\toffice chair\tchair\t40\t5\t4",
        '3\t24" monitor\tmonitor\t2\t40\t7',
    )
    assert read_label_table(path) == {"wall": 1, "office chair": 5, '24" monitor': 40}


def test_last_row_of_a_repeated_category_holds(tmp_path: Path) -> None:
    path = write_table(tmp_path, "1\tdesk\tdesk\t1\t14\t3", "2\tdesk\tdesk\t1\t7\t3")
    assert read_label_table(path) == {"desk": 7}


@pytest.mark.parametrize(
    ("name", "class_id"),
    [
        ("office_chair", 5),  # underscores stand for spaces
        ("office chair", 5),
        ("chair", 39),  # not in the table
        ("book", 39),  # NYU40's 23 is none of the 20 classes
        ("ceiling", 39),
        ("bathtub", 36),
        ("box of things", 39),
    ],
)
def test_benchmark_class(name: str, class_id: int) -> None:
    table = {"office chair": 5, "book": 23, "ceiling": 22, "bathtub": 36, "box of things": 39}
    assert benchmark_class(table, name) == class_id


def test_the_twenty_classes() -> None:
    kept = [n for n in range(41) if n != 39 and benchmark_class({"x": n}, "x") == n]
    assert kept == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36]


def test_missing_column(tmp_path: Path) -> None:
    path = write_table(tmp_path, header="id\traw_category\n")
    with pytest.raises(DataError, match=r"labels.tsv: has no column 'nyu40id'"):
        read_label_table(path)


@pytest.mark.parametrize("row", ["1\twall\twall\t3\tfive\t1", "1\twall"])
def test_bad_class_id(tmp_path: Path, row: str) -> None:
    path = write_table(tmp_path, "1\tdesk\tdesk\t1\t14\t3", row)
    with pytest.raises(DataError, match=r"labels.tsv: line 3: nyu40id .* is not a number"):
        read_label_table(path)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_label_table(tmp_path / "none.tsv")
