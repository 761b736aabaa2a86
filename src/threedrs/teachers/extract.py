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
from pathlib import Path
from typing import Any

from threedrs.errors import DataError, StoreError, write_problem
from threedrs.io.files import (
    SCENE_NAME,
    check_scene_name,
    is_leftover,
    sha256_of_json,
    write_json,
)
from threedrs.io.zarr_store import array_digest
from threedrs.scannet.excluded_scans import excluded_rows
from threedrs.scenes.store import SceneStore
from threedrs.teachers import feature_store
from threedrs.teachers.feature_store import SceneOrigin
from threedrs.teachers.known_teachers import open_extractor, teacher_code_hash
from threedrs.teachers.teacher import LAST, FeatureExtractor, SkippedSceneError, TeacherSettings
from threedrs.teachers.teacher_frames import TeacherFrames
from threedrs.workflow.code_hash import code_hash

__all__ = ["TeacherSettings", "extract_shard"]

WRITERS = 2  # threads; a scene of 26 MB takes one about 0.2 s, most of it checksums and compression

logger = logging.getLogger(__name__)


def extract_shard(
    scene_stores: Sequence[Path],
    settings: TeacherSettings,
    out: Path,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Compute what is missing of the shard's features; write and return its manifest.

    A scene for which the teacher has nothing (an npz that is not there) is listed under ``skipped``
    with the reason, as is a scene that the scene stage left out; whatever cannot be read or
    computed is an error.

    Args:
        scene_stores: the shard's scene stores, in its order; groups of other scenes in ``out`` are
            removed.
        settings: the teacher and its options.
        out: the store's folder, ``<shard>.zarr``.
        left_out: scene -> reason, for the shard's scenes that have no usable store; features that
            they have from earlier stay, unused.

    Raises:
        CheckpointError: the teacher's weights are missing or do not fit.
        MachineError: the GPU's memory is too small.
        StoreError: a scene store is unreadable, or ``out`` cannot be written.
        DataError: an input cannot be read, a feature is not finite, or the teacher has none of the
            shard's scenes; names scene and frame.
    """
    # before the teacher's modules are imported: if they are edited meanwhile, what was made with
    # the new ones counts as made with the old ones, and is made again
    code_sha256 = sha256_of_json([code_hash("features"), teacher_code_hash(settings.name)])
    extractor = open_extractor(settings)
    left_out = left_out or {}
    origins, skipped = _origins(scene_stores, extractor, settings, code_sha256)
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
        manifest = _manifest(
            out, list(origins.values()), extractor, settings, skipped + excluded_rows(left_out)
        )
        write_json(out / feature_store.MANIFEST, manifest)
    except OSError as error:
        raise StoreError(f"{out}: {write_problem(error)}") from error
    return manifest


def _settings(extractor: FeatureExtractor, settings: TeacherSettings) -> dict[str, Any]:
    return {"grid": settings.grid, **dict(extractor.recipe)}


def _origins(
    scene_stores: Sequence[Path],
    extractor: FeatureExtractor,
    settings: TeacherSettings,
    code_sha256: str,
) -> tuple[dict[Path, SceneOrigin], list[dict[str, str]]]:
    """Return what each scene's features come from, and the scenes that have none."""
    settings_sha256 = sha256_of_json({"code": code_sha256, **_settings(extractor, settings)})
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
            teacher=settings.name,
            weights_sha256=weights_sha256,
            settings_sha256=settings_sha256,
        )
    return origins, skipped


def _manifest(
    out: Path,
    origins: Sequence[SceneOrigin],
    extractor: FeatureExtractor,
    settings: TeacherSettings,
    skipped: list[dict[str, str]],
) -> dict[str, Any]:
    """Return the manifest; the code is not in it, so equal features leave later stages alone."""
    scenes = {
        origin.scene: feature_store.manifest_entry(feature_store.open_scene(out, origin.scene))
        for origin in origins
    }
    channels = {entry["shape"][-1]: scene for scene, entry in scenes.items()}
    if len(channels) > 1:
        found = ", ".join(f"{scene} {count}" for count, scene in channels.items())
        raise DataError(f"{out}: features of one teacher have different channels ({found})")
    return {
        "format_version": feature_store.FORMAT_VERSION,
        "teacher": settings.name,
        "channels": next(iter(channels), 0),
        "grid": settings.grid,
        "settings_sha256": sha256_of_json(_settings(extractor, settings)),
        "weights_sha256": sha256_of_json(sorted({o.weights_sha256 for o in origins})),
        "scenes": scenes,
        "skipped": skipped,
    }


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
        digest = array_digest(feature_store.read_scene(reader))
    except StoreError as error:
        logger.warning("%s: computed again: %s", origin.scene, error)
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
            now = time.monotonic()
            student = result.origin.frame_ids
            frames = TeacherFrames(
                student=student,
                teacher=student if result.frame_ids is None else result.frame_ids,
                proven=result.frames_proven,
            )
            # In the job's log too, for whoever looks there first.
            if frames.to_entry():
                logger.warning("%s: %s", result.origin.scene, frames.note())
            writing.append(
                writers.submit(
                    feature_store.write_scene,
                    out,
                    result.origin,
                    result.taps[LAST],
                    input_size=result.input_size,
                    seconds=now - before,
                    frames=frames,
                )
            )
            # A disk slower than the teacher holds it up here; else the memory would fill.
            while len(writing) > WRITERS:
                writing.popleft().result()
            logger.info(
                "%s: %d frames in %.2f s, %d of %d scenes, about %.0f s left",
                result.origin.scene,
                len(result.origin.frame_ids),
                now - before,
                number,
                len(due),
                (now - started) / number * (len(due) - number),
            )
            before = now
        for future in writing:
            future.result()
