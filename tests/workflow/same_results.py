"""Whether two runs came to the same: results folders compared file by file, but for times."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Measured, or a hash of what is: allowed to differ by name.
MEASURED = {
    "sources",  # of a summary: hashes of files that hold times
    "seconds",
    "rank_seconds",
    "samples_per_second",
    "tokens_per_second",
    "peak_memory_gib",
    "timing",
}
# TensorBoard's files hold dates; checkpoints are no results.
UNCOMPARED = ("logs/*", "benchmarks/*", "train/*/checkpoints/*", "train/*/tensorboard/*")


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return what differs between two results folders, other than measured numbers."""
    names = [{*_compared(folder)} for folder in (ours, theirs)]
    found = [f"only in one: {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if not _equal(ours / name, theirs / name):
            found.append(name)
    return found


def _compared(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        inside = any(
            part.match(pattern) for part in (relative, *relative.parents) for pattern in UNCOMPARED
        )
        if path.is_file() and not inside and path.suffix != ".lock":
            yield relative.as_posix()


def _equal(ours: Path, theirs: Path) -> bool:
    one, other = ours.read_bytes(), theirs.read_bytes()
    if one == other:
        return True
    if ours.suffix == ".npz":
        with np.load(ours) as left, np.load(theirs) as right:
            return set(left) == set(right) and all(
                np.array_equal(left[key], right[key], equal_nan=left[key].dtype.kind == "f")
                for key in left
            )
    if ours.suffix in (".json", ".jsonl"):
        parse = json.loads if ours.suffix == ".json" else _rows
        return _computed(parse(one)) == _computed(parse(other))
    if ours.suffix == ".html":
        return _TIMES.sub(b"", one) == _TIMES.sub(b"", other)
    return False


# The page's table of seconds and megabytes, its curve of the speed of training, and such numbers
# within the provenance.
_TIMES = re.compile(
    rb'<section id="costs".*?</section>|<svg(?:(?!</svg>).)*samples a second.*?</svg>'
    rb'|"timing": \{[^}]*\}'
    rb'|"(?:seconds|rank_seconds|samples_per_second|tokens_per_second|peak_memory_gib)": [^,}]*',
    re.DOTALL,
)


def _rows(text: bytes) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _computed(value: Any) -> Any:
    """Return the value without what is measured."""
    if isinstance(value, dict):
        return {key: _computed(item) for key, item in value.items() if key not in MEASURED}
    return [_computed(item) for item in value] if isinstance(value, list) else value
