"""Features of one shard of scenes: scene stores in, one feature store out.

The model is loaded once, and only if a scene needs it: a scene whose inputs, weights, settings and
teacher's code are unchanged, and whose stored features match their checksum, is kept. Features are
written by threads behind the teacher, so a GPU does not wait for the disk. A killed run loses the
scenes that were not written yet, at most those in flight; the manifest is written last.
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from threedrs.errors import DataError, StoreError, without_remedy, write_problem
from threedrs.io.files import SCENE_NAME, check_scene_name, is_leftover, sha256_of_json, write_json
from threedrs.io.zarr_store import array_digest
from threedrs.scannet.excluded_scans import excluded_rows
from threedrs.scenes.store import SceneStore
from threedrs.teachers import feature_store
from threedrs.teachers.feature_store import SceneOrigin
from threedrs.teachers.known_teachers import open_extractor, teacher_code_hash
from threedrs.teachers.teacher import LAST, FeatureExtractor, SkippedSceneError, TeacherSettings
from threedrs.workflow.code_hash import code_hash

WRITERS = 2  # threads; a scene of 26 MB takes one about 0.2 s, most of it checksums and compression

logger = logging.getLogger(__name__)


def extract_shard(
    scene_stores: Sequence[Path],
    settings: TeacherSettings,
    out: Path,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Compute what is missing of the features in ``<shard>.zarr``; write and return its manifest.

    A scene for which the teacher has nothing (an npz that is not there) is listed under ``skipped``
    with the reason. So are those of ``left_out`` (scene -> reason), which have no usable store.
    Features that these have from earlier stay, unused. Groups of scenes that are not of the shard
    are removed.

    Raises:
        CheckpointError: the teacher's weights are missing or do not fit.
        MachineError: the GPU's memory is too small.
        StoreError: a scene store is unreadable, or ``out`` cannot be written.
        DataError: an input cannot be read, a feature is not finite, or the teacher has none of the
            shard's scenes; names scene and frame.
    """
    # Before the teacher's modules are imported: what is made with modules that are edited meanwhile
    # counts as made with the old ones, and is made again.
    code_sha256 = sha256_of_json([code_hash("features"), teacher_code_hash(settings.name)])
    extractor, left_out = open_extractor(settings), left_out or {}
    recipe = {"grid": settings.grid, **extractor.recipe}
    settings_sha256 = sha256_of_json({"code": code_sha256, **recipe})
    origins, skipped = _origins(scene_stores, extractor, settings.name, settings_sha256)
    for row in skipped:
        logger.warning("%s: skipped: %s", row["scene"], row["reason"])
    if skipped and not origins:
        raise DataError(
            f"{out}: teacher {settings.name} has features of none of the shard's scenes "
            f"({skipped[0]['scene']}: {skipped[0]['reason']}); check teacher.weights"
        )
    try:
        # From here on the old manifest, if any, may describe what is no longer there
        (out / feature_store.MANIFEST).unlink(missing_ok=True)
        feature_store.write_root(out)
        _remove_other_scenes(out, {origin.scene for origin in origins.values()} | set(left_out))
        due = {path: origin for path, origin in origins.items() if not _is_current(out, origin)}
        logger.info("%s: %d scenes kept, %d to do", out, len(origins) - len(due), len(due))
        if due:
            _extract_scenes(extractor, due, out, grid=settings.grid)
        channels, scenes = _written(out, [origin.scene for origin in origins.values()])
        weights = sorted({origin.weights_sha256 for origin in origins.values()})
        # The code is not in it, so equal features leave later stages as they are.
        manifest = {
            "format_version": feature_store.FORMAT_VERSION,
            "teacher": settings.name,
            "channels": channels,
            "grid": settings.grid,
            "settings_sha256": sha256_of_json(recipe),
            "weights_sha256": sha256_of_json(weights),
            "scenes": scenes,
            "skipped": skipped + excluded_rows(left_out),
        }
        write_json(out / feature_store.MANIFEST, manifest)
    except OSError as error:
        raise StoreError(f"{out}: {write_problem(error)}") from error
    return manifest


def _origins(
    scene_stores: Sequence[Path], extractor: FeatureExtractor, teacher: str, settings_sha256: str
) -> tuple[dict[Path, SceneOrigin], list[dict[str, str]]]:
    """Return what each scene's features come from, and the scenes that have none."""
    origins: dict[Path, SceneOrigin] = {}
    skipped: list[dict[str, str]] = []
    for path in scene_stores:
        scene_store = SceneStore.open(path)
        scene = check_scene_name(scene_store.scene, str(path))
        try:
            weights_sha256 = extractor.identify(scene)
        except SkippedSceneError as reason:
            skipped.append({"scene": scene, "reason": str(reason)})
            continue
        origins[path] = SceneOrigin(
            scene=scene,
            frame_ids=tuple(scene_store.frame_ids),
            input_sha256=scene_store.content_hash(),
            teacher=teacher,
            weights_sha256=weights_sha256,
            settings_sha256=settings_sha256,
        )
    return origins, skipped


def _written(out: Path, scenes: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Return the features' channels, 0 without any, and what the manifest says of each scene."""
    entries = {s: feature_store.manifest_entry(feature_store.open_scene(out, s)) for s in scenes}
    channels = {entry["shape"][-1]: scene for scene, entry in entries.items()}
    if len(channels) > 1:
        found = ", ".join(f"{scene} {count}" for count, scene in channels.items())
        raise DataError(f"{out}: features of one teacher have different channels ({found})")
    return next(iter(channels), 0), entries


def _remove_other_scenes(out: Path, scenes: set[str]) -> None:
    """Remove groups of scenes that left the shard, and what killed writers left behind."""
    for entry in out.iterdir():
        ours = SCENE_NAME.fullmatch(entry.name) or (entry.is_dir() and is_leftover(entry))
        if ours and entry.name not in scenes:
            shutil.rmtree(entry)


def _is_current(out: Path, origin: SceneOrigin) -> bool:
    """Whether the stored features of ``origin.scene`` come from ``origin`` and are undamaged."""
    if not (out / origin.scene).is_dir():
        return False
    try:
        reader = feature_store.open_scene(out, origin.scene)
        if any(reader.attributes[name] != value for name, value in origin.attributes().items()):
            return False
        digest = array_digest(reader.read(feature_store.ARRAY))
    except StoreError as error:
        # Its remedy says what a person would do, and this does it.
        logger.warning("%s: computed again: %s", origin.scene, without_remedy(str(error)))
        return False
    return digest == reader.attributes["features_sha256"]


def _extract_scenes(
    extractor: FeatureExtractor, due: Mapping[Path, SceneOrigin], out: Path, *, grid: int | str
) -> None:
    """Compute and write the features of the scenes in ``due``, logging a line for each."""
    started = before = time.monotonic()
    writing: deque[Future[None]] = deque()
    # leaving the block waits for the writers, so scenes that are done survive an error
    with (
        ThreadPoolExecutor(WRITERS, thread_name_prefix="features-write") as writers,
        closing(extractor.features(due, grid=grid)) as stream,
    ):
        for number, result in enumerate(stream, start=1):
            now, origin = time.monotonic(), result.origin
            # In the job's log too, for whoever looks there first.
            if result.frames is not None and result.frames.to_entry():
                logger.warning("%s: %s", origin.scene, result.frames.note())
            write = partial(feature_store.write_scene, out, origin, result.taps[LAST])
            sizes = {"input_size": result.input_size, "seconds": now - before}
            writing.append(writers.submit(write, **sizes, frames=result.frames))
            # A disk slower than the teacher holds it up here; else the memory would fill.
            while len(writing) > WRITERS:
                writing.popleft().result()
            left = (now - started) / number * (len(due) - number)
            logger.info(
                f"{origin.scene}: {len(origin.frame_ids)} frames in {now - before:.2f} s, "
                f"{number} of {len(due)} scenes, about {left:.0f} s left"
            )
            before = now
        for future in writing:
            future.result()
