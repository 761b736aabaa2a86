"""The questions of one benchmark, the scene stores they need, and what their answers depend on."""

from collections.abc import Sequence
from pathlib import Path

from threedrs.errors import DataError, StoreError
from threedrs.evaluation.benchmark import Benchmark
from threedrs.evaluation.registry import benchmark_named
from threedrs.evaluation.settings import PredictSettings
from threedrs.instructions.record import Record, read_records
from threedrs.io.files import sha256_of_file, sha256_of_json
from threedrs.models.checkpoint.manifest import hash_files, require_whole
from threedrs.scenes.store import SceneStore
from threedrs.workflow.code_hash import code_hash


def read_questions(path: Path) -> tuple[list[Record], Benchmark]:
    """Return the questions of a records file and their benchmark.

    Raises:
        ConfigError: the benchmark is unknown.
        DataError: no questions, of several benchmarks, an id twice, or what scoring needs
            (references, object ids) is missing.
    """
    records = list(read_records(path))
    if not records:
        raise DataError(f"{path}: holds no questions")
    benchmark = benchmark_named(records[0].benchmark)
    seen: set[str] = set()
    for number, record in enumerate(records, start=1):
        where = f"{path}: line {number}"
        if record.benchmark != benchmark.name:
            raise DataError(f"{where}: is of {record.benchmark}, line 1 of {benchmark.name}")
        if record.id in seen:
            raise DataError(f"{where}: id {record.id!r} stands there a second time")
        seen.add(record.id)
        if benchmark.grounding and record.object_ids is None:
            raise DataError(f"{where}: a grounding question needs object_ids ([] for no object)")
        if not benchmark.grounding and not any(t.strip() for t in record.references or ()):
            raise DataError(f"{where}: an evaluation question needs references")
    return records, benchmark


def open_store(scenes: Path, scene: str) -> SceneStore:
    """Return the scene's store.

    Raises:
        StoreError: there is none, or it cannot be used.
    """
    path = scenes / f"{scene}.zarr"
    if not path.is_dir():
        raise StoreError(f"{path}: there is no scene store of {scene}; run the stage `scenes`")
    return SceneStore.open(path)


def answer_inputs(
    model: Path,
    records_file: Path,
    records: Sequence[Record],
    scenes: Path,
    settings: PredictSettings,
) -> dict[str, str]:
    """Return what the answers depend on, as hashes: model, records, settings, scenes, code.

    Raises:
        DataError: there is no trained model.
        CheckpointError: the model does not fit the manifest beside it.
        StoreError: a scene store is missing or cannot be used.
    """
    if not model.is_dir():
        raise DataError(f"{model}: is not a folder with a trained model; run the stage `models`")
    names = sorted({record.scene for record in records})
    hashes = hash_files(model)
    require_whole(model, hashes)
    return {
        "model": sha256_of_json(hashes),
        "records": sha256_of_file(records_file),
        "settings": sha256_of_json(settings.to_json()),
        "scenes": sha256_of_json({n: open_store(scenes, n).content_hash() for n in names}),
        "code": code_hash("predict"),
    }
