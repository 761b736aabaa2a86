"""Records of several benchmarks to one training mix.

`threedrs.instructions.balance` decides what enters, and how often. Here records are read and
checked, and the mix is written with a summary of what it holds and what it was drawn from. All
records are held in memory (223,128 of them: see benchmarks/instructions.py).
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.instructions.balance import SourceDraw, draw_mix, pool_table
from threedrs.instructions.llava_format import load_records
from threedrs.instructions.mix_settings import MixSettings
from threedrs.io.files import sha256_of_file, write_json
from threedrs.scannet.excluded_scans import count_excluded
from threedrs.tasks.record import FORMAT_VERSION, Record, write_records
from threedrs.tasks.registry import TASKS

TOP_ANSWERS = 20
logger = logging.getLogger(__name__)


def build_mix(
    record_files: Sequence[Path],
    settings: MixSettings,
    held_out_scenes: Collection[str],
    out_jsonl: Path,
    out_summary: Path,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write the mix and its summary, and return the summary.

    A repeated record stands in the mix as often as it was drawn, under its own id. Its records come
    in the order of benchmarks and files.

    Args:
        held_out_scenes: scenes of evaluation splits (val and test), none of which may enter.
        out_summary: settings, samples and repeats per benchmark; question types, samples a scene
            and answers, of the mix and (under ``before``) of all records that can be used; under
            ``left_out`` the records of scenes that cannot.
        left_out: scene -> reason, for scenes whose scans cannot be used.

    Raises:
        ConfigError: the settings name a benchmark that has no records.
        DataError: a record is of an evaluation split, of a held-out scene, of an unknown
            benchmark, or there twice; no record is usable or matches; or the caps leave too few.
    """
    left_out = left_out or {}
    every_record = _training_records(record_files, frozenset(held_out_scenes))
    usable = [record for record in every_record if record.scene not in left_out]
    if not usable:
        raise DataError("the training mix has no record: all are of scenes that are left out")
    records = [record for record in usable if settings.admits(record)]
    if not records:
        raise DataError(f"the training mix has no record that matches {settings.matching!r}")
    draw = draw_mix(pool_table(records), settings)
    if not len(draw.rows):
        raise DataError("the training mix holds no sample; ask for more in its sampling")
    mix = [records[row] for row in draw.rows]
    _warn_of_repeats(draw.sources)
    summary = {
        "format_version": FORMAT_VERSION,
        **settings.to_json(),
        "inputs": [{"file": path.name, "sha256": sha256_of_file(path)} for path in record_files],
        "sources": {name: asdict(source) for name, source in draw.sources.items()},
        "repeats": sum(source.repeats for source in draw.sources.values()),
        "left_out": count_excluded(
            left_out,
            (record.scene for record in every_record if record.scene in left_out),
            [path.with_suffix(".summary.json") for path in map(Path, record_files)],
            "records",
        ),
        **describe(mix),
        "before": describe(usable),
    }
    # The summary comes last: where it is, the mix is whole.
    write_records(out_jsonl, mix)
    write_json(out_summary, summary)
    return summary


def _warn_of_repeats(sources: Mapping[str, SourceDraw]) -> None:
    for name, source in sources.items():
        if source.repeats:
            logger.warning(
                "%s: %d of %d samples are repeats: the source has %d records",
                *(name, source.repeats, source.drawn, source.available),
            )


def _training_records(record_files: Sequence[Path], held_out: frozenset[str]) -> list[Record]:
    """Return all records in the order of the benchmark table, each checked to be for training."""
    # Sorted by benchmark, so that the mix does not depend on the order of the files.
    by_benchmark: dict[str, list[Record]] = {name: [] for name in TASKS}
    seen: set[tuple[str, str]] = set()
    for path in map(Path, record_files):
        for record in load_records(path):
            if record.benchmark not in by_benchmark:
                raise DataError(
                    f"{path}: {record.id}: no benchmark {record.benchmark!r}; "
                    f"known are {', '.join(TASKS)}"
                )
            # Refused, not dropped: questions among the training data would void the scores, and
            # whoever listed such a file meant another one.
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
    types, words, answers = {}, {}, {}
    for name, members in by_benchmark.items():
        types[name] = dict(Counter(one.question_type or "none" for one in members).most_common())
        words[name] = _distribution(len(one.answer.split()) for one in members)
        most = Counter(one.answer for one in members).most_common(TOP_ANSWERS)
        answers[name] = [{"answer": answer, "samples": count} for answer, count in most]
    per_scene = Counter(record.scene for record in records)
    return {
        "samples": len(records),
        "benchmarks": {name: len(members) for name, members in by_benchmark.items()},
        "question_types": types,
        "scenes": len(per_scene),
        "samples_per_scene": _distribution(per_scene.values()),
        "answer_words": words,
        "top_answers": answers,
    }


def _distribution(values: Iterable[int]) -> dict[str, float]:
    """Return mean and quantiles of a non-empty list of counts."""
    array = np.fromiter(values, dtype=np.int64)
    quantiles = np.quantile(array, [0, 0.25, 0.5, 0.75, 1])
    names = ("minimum", "quartile1", "median", "quartile3", "maximum")
    return {"mean": float(array.mean()), **dict(zip(names, map(float, quantiles), strict=True))}
