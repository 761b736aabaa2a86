"""Records of several benchmarks to one training mix.

The mix ``all`` holds every record once, in the order of the benchmark table. All records are held
in memory (223,128 of them: about 0.6 GB); writing takes a few seconds.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from threedrs.errors import ConfigError, DataError
from threedrs.files import atomic_file, sha256_of_file, write_json
from threedrs.instructions.llava import load_records
from threedrs.instructions.record import FORMAT_VERSION, Record, write_records
from threedrs.instructions.registry import BENCHMARKS

BALANCES = ("all",)
TOP_ANSWERS = 20


def build_mix(
    record_files: Sequence[Path],
    balance: str,
    held_out_scenes: Collection[str],
    out_jsonl: Path,
    out_parquet: Path,
    out_summary: Path,
) -> dict[str, Any]:
    """Write the mix as JSON lines and as a table, and what it holds; return the latter.

    Args:
        record_files: training records, as JSON lines or LLaVA-style arrays.
        balance: "all": every record once.
        held_out_scenes: scenes of evaluation splits, none of which may enter.
        out_jsonl: the mix, one record a line.
        out_parquet: the same records, one column a field.
        out_summary: shares, question types, samples a scene, answers.

    Raises:
        ConfigError: an unknown ``balance``.
        DataError: a record is of an evaluation split, of a held-out scene, of an unknown
            benchmark, or there twice; or there is no record at all.
    """
    if balance not in BALANCES:
        raise ConfigError(f"balance is {balance!r}; choose one of: {', '.join(BALANCES)}")
    records = _training_records(record_files, frozenset(held_out_scenes))
    summary = {
        "format_version": FORMAT_VERSION,
        "balance": balance,
        "inputs": [{"file": path.name, "sha256": sha256_of_file(path)} for path in record_files],
        **describe(records),
    }
    write_records(out_jsonl, records)
    with atomic_file(out_parquet) as temporary:
        table = pd.DataFrame.from_records([record.to_json() for record in records])
        table.to_parquet(temporary, index=False)
    write_json(out_summary, summary)
    return summary


def _training_records(record_files: Sequence[Path], held_out: frozenset[str]) -> list[Record]:
    """Return all records in the order of the benchmark table, each checked to be for training."""
    by_benchmark: dict[str, list[Record]] = {name: [] for name in BENCHMARKS}
    seen: set[tuple[str, str]] = set()
    for path in map(Path, record_files):
        for record in load_records(path):
            if record.benchmark not in by_benchmark:
                raise DataError(
                    f"{path}: {record.id}: no benchmark {record.benchmark!r}; "
                    f"known are {', '.join(BENCHMARKS)}"
                )
            if record.references is not None:
                raise DataError(
                    f"{path}: {record.id} is a question of an evaluation split (it has "
                    "references); mix training records only"
                )
            if record.scene in held_out:
                raise DataError(
                    f"{path}: {record.id} is of {record.scene}, a held-out scene of an evaluation "
                    "split; mix training records only"
                )
            if (record.benchmark, record.id) in seen:
                raise DataError(f"{path}: {record.id} stands twice in the mix; list a file once")
            seen.add((record.benchmark, record.id))
            by_benchmark[record.benchmark].append(record)
    records = [record for members in by_benchmark.values() for record in members]
    if not records:
        raise DataError("the training mix has no record; name at least one file with records")
    return records


def describe(records: Sequence[Record]) -> dict[str, Any]:
    """Return what a mix holds: samples per benchmark, type and scene; answers per benchmark."""
    by_benchmark: dict[str, list[Record]] = {}
    for record in records:
        by_benchmark.setdefault(record.benchmark, []).append(record)
    per_scene = Counter(record.scene for record in records)
    return {
        "samples": len(records),
        "benchmarks": {name: len(members) for name, members in by_benchmark.items()},
        "question_types": {
            name: dict(Counter(record.question_type or "none" for record in members).most_common())
            for name, members in by_benchmark.items()
        },
        "scenes": len(per_scene),
        "samples_per_scene": _distribution(per_scene.values()),
        "answer_words": {
            name: _distribution(len(record.answer.split()) for record in members)
            for name, members in by_benchmark.items()
        },
        "top_answers": {
            name: [
                {"answer": answer, "samples": count}
                for answer, count in Counter(record.answer for record in members).most_common(
                    TOP_ANSWERS
                )
            ]
            for name, members in by_benchmark.items()
        },
    }


def _distribution(values: Iterable[int]) -> dict[str, float]:
    """Return mean and quantiles of a non-empty list of counts."""
    array = np.fromiter(values, dtype=np.int64)
    quantiles = np.quantile(array, [0, 0.25, 0.5, 0.75, 1])
    names = ("minimum", "quartile1", "median", "quartile3", "maximum")
    return {
        "mean": float(array.mean()),
        **dict(zip(names, map(float, quantiles), strict=True)),
    }
