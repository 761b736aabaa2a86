"""Features of one shard of scenes: scene stores in, one feature store out.

The model is loaded once, and only if a scene needs it: a scene whose inputs, weights and settings
are unchanged, and whose stored features match their checksum, is kept. Pictures are decoded by
threads up to two scenes ahead of the model and features are written by another thread, so a GPU
waits for neither. A killed run loses the scene it was at; the manifest is written last.

Memory: the model, three scenes of pictures (78 MB each at 32 frames of 518x392), the activations of
one layer.

S frames, h w rows and columns of the stored grid, C channels.
"""

import logging
import re
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from threedrs.errors import ConfigError, DataError, StoreError
from threedrs.files import SCENE_NAME, check_scene_name, sha256_of_json, write_json
from threedrs.scenes.store import SceneStore
from threedrs.scenes.zarr_io import array_digest
from threedrs.teachers import store as feature_store
from threedrs.teachers.decode import SCENES_AHEAD, decoded_ahead
from threedrs.teachers.forward import GRID, choose_device, prepare, scene_features
from threedrs.teachers.registry import get_teacher
from threedrs.teachers.store import SceneOrigin

RECIPE = 1  # raised when a change of this package changes the features; then every scene is redone
# what killed writers leave behind
LEFTOVER = re.compile(rf"\.{SCENE_NAME.pattern}\.\d+\.tmp")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """What decides the features (config section ``teacher``).

    Attributes:
        name: a teacher of the registry.
        weights: its checkpoint, for ``vggt``.
        seed: of the random weights of ``vggt-tiny``.
        grid: 14: pooled to 14x14; "full": the teacher's own grid.
    """

    name: str
    weights: Path | None = None
    seed: int = 0
    grid: int | str = GRID

    def __post_init__(self) -> None:
        get_teacher(self.name)
        if self.grid not in (GRID, "full"):
            raise ConfigError(f"teacher.grid {self.grid!r} is unknown; choose one of 14, full")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"teacher.seed {self.seed!r} must be an integer of at least 0")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TeacherSettings":
        """Return the settings of the config's section ``teacher``."""
        section = config["teacher"]
        weights = section.get("weights")
        return cls(
            name=section["name"],
            weights=None if weights is None else Path(weights),
            seed=section.get("seed", 0),
            grid=section.get("grid", GRID),
        )


def extract_shard(
    scene_stores: Sequence[Path], settings: TeacherSettings, out: Path
) -> dict[str, Any]:
    """Compute what is missing of the shard's features; write and return its manifest.

    Args:
        scene_stores: the shard's scene stores, in its order; groups of other scenes in ``out`` are
            removed.
        settings: the teacher and its options.
        out: the store's folder, ``<shard>.zarr``.

    Raises:
        CheckpointError: the teacher's weights are missing or do not fit.
        StoreError: a scene store is unreadable, or ``out`` cannot be written.
        DataError: a picture cannot be decoded, a scene's pictures differ in size, or a feature is
            not finite; names scene and frame.
    """
    teacher = get_teacher(settings.name)
    weights_sha256 = teacher.identify(settings.weights, settings.seed)
    settings_sha256 = sha256_of_json(
        {"recipe": RECIPE, "grid": settings.grid, "input_width": teacher.input_width}
    )
    origins: dict[Path, SceneOrigin] = {}
    for path in scene_stores:
        scene_store = SceneStore.open(path)
        scene = check_scene_name(scene_store.scene, str(path))
        origins[path] = SceneOrigin(
            scene=scene,
            frame_ids=tuple(scene_store.frame_ids),
            input_sha256=scene_store.content_hash(),
            teacher=settings.name,
            weights_sha256=weights_sha256,
            settings_sha256=settings_sha256,
        )

    try:
        # from here on the old manifest, if any, may describe what is no longer there
        (out / feature_store.MANIFEST).unlink(missing_ok=True)
        feature_store.write_root(out)
        _remove_other_scenes(out, {origin.scene for origin in origins.values()})
        due = {path: origin for path, origin in origins.items() if not _is_current(out, origin)}
        logger.info("%s: %d scenes kept, %d to do", out, len(origins) - len(due), len(due))
        if due:
            model = teacher.load(settings.weights, settings.seed)
            _extract_scenes(model, due, out, width=teacher.input_width, grid=settings.grid)
        manifest = {
            "format_version": feature_store.FORMAT_VERSION,
            "teacher": settings.name,
            "channels": teacher.channels,
            "grid": settings.grid,
            "weights_sha256": weights_sha256,
            "settings_sha256": settings_sha256,
            "scenes": {
                origin.scene: feature_store.manifest_entry(
                    feature_store.open_scene(out, origin.scene)
                )
                for origin in origins.values()
            },
            # part of the format; vggt can do every scene that has a store, and what it cannot
            # read is an error
            "skipped": [],
        }
        write_json(out / feature_store.MANIFEST, manifest)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error.strerror or error})") from error
    return manifest


def _remove_other_scenes(out: Path, scenes: set[str]) -> None:
    """Remove groups of scenes that left the shard, and what killed writers left behind."""
    for entry in out.iterdir():
        ours = SCENE_NAME.fullmatch(entry.name) or LEFTOVER.fullmatch(entry.name)
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
    model: nn.Module,
    due: Mapping[Path, SceneOrigin],
    out: Path,
    *,
    width: int,
    grid: int | str,
) -> None:
    """Compute and write the features of the scenes in ``due``, logging a line for each."""
    device = choose_device()
    model = prepare(model, device)
    logger.info("teacher on %s", torch.cuda.get_device_name() if device.type == "cuda" else "CPU")
    started = before = time.monotonic()
    written: deque[Future[None]] = deque()
    # leaving the block waits for the writer, so scenes that are done survive an error
    with ThreadPoolExecutor(1, thread_name_prefix="features-write") as writer:
        for number, (origin, images_S3HW) in enumerate(decoded_ahead(due, width), start=1):
            features_ShwC = scene_features(model, torch.from_numpy(images_S3HW), grid=grid)
            bad_frames = ~features_ShwC.isfinite().flatten(1).all(dim=1)
            if bad_frames.any():
                frame = origin.frame_ids[int(bad_frames.nonzero()[0])]
                raise DataError(
                    f"{origin.scene}: the teacher's features of frame {frame} are not finite; "
                    "check the checkpoint (teacher.weights)"
                )
            now = time.monotonic()
            written.append(
                writer.submit(
                    feature_store.write_scene,
                    out,
                    origin,
                    features_ShwC.numpy(),
                    input_size=(images_S3HW.shape[2], images_S3HW.shape[3]),
                    seconds=now - before,
                )
            )
            while len(written) > SCENES_AHEAD:
                written.popleft().result()
            logger.info(
                "%s: %d frames in %.2f s, %d of %d scenes, about %.0f s left",
                origin.scene,
                len(origin.frame_ids),
                now - before,
                number,
                len(due),
                (now - started) / number * (len(due) - number),
            )
            before = now
        for future in written:
            future.result()
