"""A shard of scene stores: what is remade, which scans are left out, which faults stop it."""

import errno
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.scan_files import BOXES, SETTINGS, chunk_file, make_scan, write_sens
from threedrs.errors import DataError, StoreError
from threedrs.scannet.boxes import make_box_set
from threedrs.scenes import store as store_module
from threedrs.scenes.build import build_shard
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.store import SceneStore


class Shard:
    """Two scans, their boxes, and where their stores go."""

    def __init__(self, root: Path) -> None:
        self.scans = [make_scan(root, f"scene000{i}_00", seed=i) for i in range(2)]
        self.boxes = {scan.scene: dict(BOXES) for scan in self.scans}
        self.out, self.manifest = root / "scenes", root / "scenes" / "shards" / "train-000.json"

    def build(self, settings: SceneSettings = SETTINGS) -> dict[str, Any]:
        build_shard(self.scans, self.boxes, settings, self.out, self.manifest, "train")
        content = json.loads(self.manifest.read_text())
        assert isinstance(content, dict)
        return content

    def identities(self) -> list[int]:
        """The folders' inodes: a store that was replaced has another."""
        return [
            (self.out / f"{scan.scene}.zarr" / "zarr.json").stat().st_ino for scan in self.scans
        ]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path)


def test_shard_manifest_and_what_is_remade(shard: Shard) -> None:
    manifest = shard.build()
    assert manifest["format_version"] == 1
    assert list(manifest["scenes"]) == ["scene0000_00", "scene0001_00"]
    store = SceneStore.open(shard.out / "scene0001_00.zarr")
    assert manifest["scenes"]["scene0001_00"] == {
        "content": store.content_hash(),
        "frames": 3,
        "objects": {"gt": 2, "pred": 1},
    }
    assert [note["scene"] for note in manifest["notes"]] == ["scene0000_00", "scene0001_00"]
    text, built = shard.manifest.read_text(), shard.identities()
    os.utime(shard.scans[0].sens, (1, 1))
    shard.build()
    assert (shard.manifest.read_text(), shard.identities()) == (text, built)

    write_sens(shard.scans[1].sens, seed=5)
    replaced = shard.build()
    assert [new == old for new, old in zip(shard.identities(), built, strict=True)] == [True, False]
    assert replaced["scenes"]["scene0000_00"] == manifest["scenes"]["scene0000_00"]
    assert replaced["scenes"]["scene0001_00"] != manifest["scenes"]["scene0001_00"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["boxes", "alignment", "settings", "damage", "code"])
def test_what_else_remakes_a_scene(
    shard: Shard, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = shard.build()
    built, settings = shard.identities(), SETTINGS
    scene, untouched = shard.scans[0], what in ("boxes", "alignment", "damage")
    if what == "boxes":
        shard.boxes[scene.scene]["pred"] = make_box_set()
    elif what == "alignment":
        scene.meta.write_text("colorHeight = 60\n")
    elif what == "settings":
        settings = SETTINGS.replace(stride=7)
    elif what == "damage":
        file = chunk_file(shard.out / "scene0000_00.zarr", "rgb")
        content = bytearray(file.read_bytes())
        content[1000] ^= 1
        file.write_bytes(content)
    else:
        monkeypatch.setattr("threedrs.scenes.build.code_hash", lambda stage: "other code")
    remade = shard.build(settings)
    kept = [new == old for new, old in zip(shard.identities(), built, strict=True)]
    assert kept == [False, untouched]
    same_content = what in ("damage", "code")
    assert (remade["scenes"]["scene0000_00"] == manifest["scenes"]["scene0000_00"]) is same_content
    SceneStore.open(shard.out / "scene0000_00.zarr").verify()


def test_a_damaged_store_is_remade_and_nobody_is_told_to_remake_it(
    shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    shard.build()
    store = shard.out / "scene0000_00.zarr"
    (store / "zarr.json").write_text("{")
    shard.build()
    (said,) = [found.message for found in caplog.records if found.levelname == "WARNING"]
    assert said.startswith(f"{store}: ")
    assert said.endswith("; remaking it now")
    assert "verify" not in said
    SceneStore.open(store).verify()


def test_a_bad_scan_is_left_out_and_tried_anew_each_time(shard: Shard) -> None:
    whole = shard.build()
    assert whole["left_out"] == []
    built = shard.identities()
    content = shard.scans[1].sens.read_bytes()
    shard.scans[1].sens.write_bytes(content[:-100])
    os.utime(shard.scans[1].sens, (1, 1))
    manifest = shard.build()
    assert list(manifest["scenes"]) == ["scene0000_00"]
    assert [note["scene"] for note in manifest["notes"]] == ["scene0000_00"]
    (row,) = manifest["left_out"]
    assert row["scene"] == "scene0001_00"
    assert re.search(r"scene0001_00\.sens: frame 44, byte \d+: .*truncated", row["reason"])
    shard.scans[1].sens.write_bytes(content)
    assert shard.build() == whole
    assert shard.identities() == built  # the store that it had is kept
    write_sens(shard.scans[1].sens, seed=5)
    again = shard.build()
    assert again["left_out"] == []
    assert shard.identities()[1] != built[1]
    del shard.boxes["scene0001_00"]
    with pytest.raises(DataError, match="boxes file has no entry for scene0001_00"):
        shard.build()
    assert not shard.manifest.exists()


def test_what_the_boxes_leave_out_is_not_built(shard: Shard) -> None:
    del shard.boxes["scene0000_00"]
    build_shard(
        shard.scans,
        shard.boxes,
        SETTINGS,
        shard.out,
        shard.manifest,
        "train",
        excluded={"scene0000_00": "of another mesh"},
    )
    manifest = json.loads(shard.manifest.read_text())
    assert list(manifest["scenes"]) == ["scene0001_00"]
    assert manifest["left_out"] == [{"scene": "scene0000_00", "reason": "of another mesh"}]
    assert not (shard.out / "scene0000_00.zarr").exists()


def test_a_scan_that_is_still_being_copied_stops_the_shard(shard: Shard) -> None:
    os.truncate(shard.scans[1].sens, 5000)
    later = time.time() + 60
    os.utime(shard.scans[1].sens, (later, later))
    with pytest.raises(
        DataError, match=r"scene0001_00\.sens: changed while it was read; run again"
    ):
        shard.build()
    assert not shard.manifest.exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
def test_a_fault_of_the_machine_is_no_bad_scan(
    shard: Shard, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_pread(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pread", failing_pread)
    with pytest.raises(DataError, match=r"scene0000_00\.sens.*cannot be read"):
        shard.build()
    assert not shard.manifest.exists()


def test_a_full_disk_is_no_bad_scan(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.zarr_store, "write_array", full)
    with pytest.raises(StoreError, match="No space left on device"):
        shard.build()
    assert not shard.manifest.exists()
