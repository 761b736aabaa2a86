"""What is asked of whole feature stores: their channels, the frames of imports, and damage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threedrs.errors import StoreError
from threedrs.io.files import SCENE_NAME
from threedrs.io.zarr_store import array_digest
from threedrs.teachers.feature_store import ARRAY, MANIFEST, FeatureStore, open_scene
from threedrs.teachers.teacher_frames import FrameCounts, OtherFrames


def common_channels(paths: Sequence[Path]) -> int:
    """Return the channels C of the features of finished shards of one teacher.

    A shard whose scenes are all left out has none and says nothing.

    Raises:
        StoreError: a shard is unreadable, two differ, or no shard has features.
    """
    stores = {path: FeatureStore.open(path) for path in paths}
    channels = {path: store.channels for path, store in stores.items() if store.scenes}
    if not channels:
        raise StoreError(f"{paths[0]}: no scene has features here or beside it")
    first, *others = channels
    for path in others:
        if channels[path] != channels[first]:
            raise StoreError(
                f"{path}: features of {channels[path]} channels, {first} has {channels[first]}; "
                "delete both and run `snakemake --cores all features`"
            )
    return channels[first]


def frames_of_imports(
    paths: Sequence[Path], rule: OtherFrames
) -> tuple[dict[str, list[str]], list[str]]:
    """Return what the scene report says of the frames of imported features.

    These are notes by scene, and sentences about all scenes; see `FrameCounts.notes`.

    Raises:
        StoreError: a shard is unreadable.
    """
    stores = [FeatureStore.open(path) for path in paths]
    frames = [(scene, store.frames(scene)) for store in stores for scene in store.scenes]
    notes = {scene: [each.note()] for scene, each in frames if each.to_entry()}
    return notes, FrameCounts.count([each for _, each in frames], rule).notes()


def verify_store(path: Path) -> list[str]:
    """Return one line a problem of the finished shard at ``path``; an empty list means none.

    Reported: a missing, unfinished or unreadable store; a scene that the manifest lists and that is
    missing, damaged, or differs from its checksum; a scene that it does not list; values that are
    not finite.
    """
    try:
        store = FeatureStore.open(path)
    except StoreError as error:
        return [str(error)]
    problems = [problem for scene in store.scenes for problem in _scene_problems(store, scene)]
    # A scene that is left out may keep the features that it had.
    listed = {*store.scenes, *(row["scene"] for row in store.manifest.get("skipped", []))}
    problems += [
        f"{path}: {entry.name} is not listed in {MANIFEST}"
        for entry in sorted(path.iterdir())
        if SCENE_NAME.fullmatch(entry.name) and entry.name not in listed
    ]
    return problems


def _scene_problems(store: FeatureStore, scene: str) -> list[str]:
    try:
        reader = open_scene(store.path, scene)
        features_VhwC = reader.read(ARRAY)
    except StoreError as error:
        return [str(error)]
    problems = []
    if reader.attributes["scene"] != scene:
        problems.append(f"holds the features of {reader.attributes['scene']}")
    # The checksum is of dtype, shape and values.
    if array_digest(features_VhwC) != store.manifest["scenes"][scene]["features_sha256"]:
        problems.append(f"values differ from the checksum in {MANIFEST}")
    if not np.isfinite(features_VhwC).all():
        problems.append("holds values that are not finite")
    return [f"{reader.path}: {problem}" for problem in problems]
