"""The scene stores of a shard of own captures, which the workflow takes as a split of its own."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threedrs.errors import DataError, StoreError, without_remedy
from threedrs.inputs.captures import STORE
from threedrs.io.files import atomic_folder, write_json
from threedrs.scannet.excluded_scans import excluded_rows, excluding
from threedrs.scenes.build import MANIFEST_VERSION, manifest_entry
from threedrs.scenes.capture import SPLIT, CaptureOptions, build_capture
from threedrs.scenes.store import SceneStore

logger = logging.getLogger(__name__)


def build_capture_shard(
    captures: Mapping[str, Path], frames: int, *, out_folder: Path, manifest: Path
) -> None:
    """Make the store of each capture, and write the shard's ``manifest`` as `build_shard` does.

    A capture that cannot be used is excluded with its reason.

    Args:
        captures: scene -> a capture, or a store that `build_capture` made.
        frames: the most that a store built here holds.

    Raises:
        DataError: a file cannot be read by a fault of the machine.
        StoreError: a store cannot be written.
    """
    manifest.unlink(missing_ok=True)
    scenes: dict[str, Any] = {}
    notes: list[dict[str, str]] = []
    reasons: dict[str, str] = {}
    for scene, capture in captures.items():
        logger.info("%s: of %s", scene, capture)
        with excluding(scene, reasons):
            store = _make(capture, out_folder / f"{scene}.zarr", frames)
            scenes[scene] = manifest_entry(store)
            notes += [{"scene": scene, "note": note} for note in store.attributes["notes"]]
    rows = {"scenes": scenes, "notes": notes, "left_out": excluded_rows(reasons)}
    write_json(manifest, {"format_version": MANIFEST_VERSION, **rows})


def _make(capture: Path, out: Path, frames: int) -> SceneStore:
    if capture.suffix == STORE:
        return _copied(capture, out)
    try:
        return build_capture(capture, out, CaptureOptions(frames=frames), logger.info)[0]
    except DataError as error:
        raise DataError(
            f"{error}; `threedrs scene build` takes options, and data.scenes takes its store in "
            "place of the capture"
        ) from error


def _copied(given: Path, out: Path) -> SceneStore:
    """Return the copy of a whole store, so that results/ can move without what they came from."""
    try:
        store = SceneStore.open(given)
        store.verify()
    except StoreError as error:
        raise DataError(f"{without_remedy(str(error))}; build it again") from error
    if (store.scene, store.split) != (out.stem, SPLIT):
        raise DataError(
            f"{given}: is the store of {store.scene} ({store.split}); name one that `threedrs "
            f"scene build` made, and leave it its first name, as {store.scene}{STORE} here"
        )
    with atomic_folder(out) as folder:
        shutil.copytree(given, folder, dirs_exist_ok=True)
    return SceneStore.open(out)
