"""Finding damage in a feature store: every checksum is recomputed, at the disk's reading speed."""

from pathlib import Path

import numpy as np

from threedrs.errors import StoreError
from threedrs.io.files import SCENE_NAME
from threedrs.io.zarr_store import array_digest
from threedrs.teachers.store import MANIFEST, FeatureStore, open_scene, read_scene


def verify_store(path: Path) -> list[str]:
    """Return one line a problem of the finished shard at ``path``; an empty list means none.

    Reported: a missing, unfinished or unreadable store; a scene that the manifest lists and that is
    missing, damaged, or differs from its checksum or its row; a scene that it does not list; values
    that are not finite.
    """
    path = Path(path)
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
        features_VhwC = read_scene(reader)
    except StoreError as error:
        return [str(error)]
    where = reader.path
    entry = store.manifest["scenes"][scene]
    digest = array_digest(features_VhwC)
    problems = []
    if reader.attributes["scene"] != scene:
        problems.append(f"{where}: holds the features of {reader.attributes['scene']}")
    if digest != reader.attributes["features_sha256"]:
        problems.append(f"{where}: values differ from the checksum in the attributes")
    if digest != entry.get("features_sha256"):
        problems.append(f"{where}: values differ from the checksum in {MANIFEST}")
    if list(features_VhwC.shape) != entry.get("shape"):
        problems.append(
            f"{where}: shape {list(features_VhwC.shape)} differs from {MANIFEST}'s "
            f"{entry.get('shape')}"
        )
    if features_VhwC.shape[-1] != store.channels:
        problems.append(
            f"{where}: {features_VhwC.shape[-1]} channels, {MANIFEST} says {store.channels}"
        )
    if not np.isfinite(features_VhwC).all():
        problems.append(f"{where}: holds values that are not finite")
    return problems
