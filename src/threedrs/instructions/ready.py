"""Records from a processed LLaVA-style array that the user has already, in place of a conversion.

One array may hold several benchmarks; of each, what is asked for is taken. Reading holds the array
in memory (223,128 entries: about 0.5 GB).
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from threedrs.errors import DataError
from threedrs.files import sha256_of_file, write_json, write_json_lines
from threedrs.instructions.convert import ConversionSummary
from threedrs.instructions.llava import read_llava
from threedrs.instructions.record import FORMAT_VERSION, Record, write_records
from threedrs.instructions.registry import find_benchmark
from threedrs.instructions.rows import SCENE_MISSING


def take_ready(
    benchmark: str,
    split: str,
    array: Path,
    scenes: frozenset[str],
    out: Path,
    max_reject_fraction: float = 0.01,
) -> ConversionSummary:
    """Write one benchmark's records of a LLaVA-style array, as `convert` does from annotations.

    An entry of a scene outside ``scenes`` is rejected and listed. Evaluation questions must hold
    their references; training samples may not.

    Args:
        benchmark: a name of the registry.
        split: one of the benchmark's splits.
        array: the .json file.
        scenes: the scenes of the split.
        out: file of records to write.
        max_reject_fraction: stop when more than this fraction of the entries is rejected.

    Raises:
        ConfigError: unknown benchmark or split.
        DataError: the file is no such array, holds nothing of the benchmark or too many entries
            of other scenes, or questions and training samples are mixed up.
    """
    find_benchmark(benchmark, split)
    training = split == "train"
    found = [record for record in read_llava(array) if record.benchmark == benchmark]
    if not found:
        raise DataError(f"{array}: holds no entries of {benchmark}; leave it out of instructions")
    for record in found:
        if training and record.references is not None:
            raise DataError(f"{array}: {record.id} has references: an evaluation question")
        if not training and record.references is None and benchmark in _WITH_REFERENCES:
            raise DataError(f"{array}: {record.id} has no references, which {split} is scored with")
    kept: list[Record] = []
    rejected = []
    for place, record in enumerate(found):
        if record.scene in scenes:
            kept.append(record)
        else:
            rejected.append(
                {
                    "format_version": FORMAT_VERSION,
                    "file": array.name,
                    "row": place,
                    "reason": SCENE_MISSING,
                    "detail": f"{record.id}: {record.scene} is not in the split's scene list",
                }
            )
    write_json_lines(out.with_suffix(".rejected.jsonl"), rejected)
    if len(rejected) > max_reject_fraction * len(found):
        raise DataError(
            f"{array}: {len(rejected)} of {len(found)} {benchmark} entries rejected, more than "
            f"max_reject_fraction {max_reject_fraction:g}, e.g. {rejected[0]['detail']}"
        )
    summary = ConversionSummary(
        benchmark=benchmark,
        split=split,
        rows=len(found),
        records=len(kept),
        rejected=len(rejected),
        reasons=dict(Counter(str(row["reason"]) for row in rejected)),
        repeated_ids=0,
        inputs={array.name: sha256_of_file(array)},
        published_records=None,
    )
    write_records(out, kept)
    write_json(
        out.with_suffix(".summary.json"), {"format_version": FORMAT_VERSION, **asdict(summary)}
    )
    return summary


# Grounding is scored against boxes, not texts.
_WITH_REFERENCES = ("scan2cap", "scanqa", "sqa3d")
