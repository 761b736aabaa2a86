"""ScanNet's label table: from the annotators' object names to NYU40 classes.

The table (``scannetv2-labels.combined.tsv``, tab separated, a header and one row a raw category) is
read once, in milliseconds, into a dictionary.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from threedrs.errors import DataError
from threedrs.io.files import read_text

# The 20 classes of the ScanNet benchmark, by NYU40 id; 39 is "other furniture".
BENCHMARK_CLASSES = frozenset({*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39})
OTHER_CLASS = 39
MOST_BYTES = 64 * 2**20  # ScanNet's table has 50 kB


def read_label_table(path: Path) -> dict[str, int]:
    """Return raw category -> NYU40 id; of a repeated category the last row holds.

    Raises:
        DataError: the table is missing, lacks a column, or holds an id that is not a number.
    """
    # Categories may hold quotation marks, which mean nothing in this format.
    lines = read_text(path, most=MOST_BYTES).splitlines()
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    table: dict[str, int] = {}
    try:
        for column in ("raw_category", "nyu40id"):
            if column not in (reader.fieldnames or ()):
                raise DataError(
                    f"{path}: has no column {column!r} in its first line; expected ScanNet's "
                    "tab-separated label table"
                )
        for number, row in enumerate(reader, start=2):
            value = row["nyu40id"]
            if value is None or not (value.strip().isdecimal() and len(value) < 10):
                raise DataError(
                    f"{path}: line {number}: nyu40id {value!r:.80} is not a number; copy it again"
                )
            table[row["raw_category"]] = int(value)
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num + 1} is not a table row ({error}); copy it again"
        ) from error
    return table


def benchmark_class(table: Mapping[str, int], object_name: str) -> int:
    """Return the NYU40 id by which ScanRefer tells unique from multiple objects.

    ``object_name`` is the annotation's, with underscores for spaces. Names that the table does not
    hold, and classes outside the ScanNet benchmark's 20, count as other furniture (39).
    """
    class_id = table.get(object_name.replace("_", " "), OTHER_CLASS)
    return class_id if class_id in BENCHMARK_CLASSES else OTHER_CLASS
