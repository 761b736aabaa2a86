"""A shard of own captures: stores built and copied, and those that are excluded."""

import json
from pathlib import Path

from fixtures.captures import room_capture, write_open3d
from threedrs.doctor.verify import verify_results
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.scannet.layout import DataLayout
from threedrs.scenes.capture import CaptureOptions, build_capture
from threedrs.scenes.capture_shard import build_capture_shard
from threedrs.scenes.report import ROWS_FILE, write_shard_facts
from threedrs.scenes.store import SceneStore


def test_captures_and_stores_make_a_shard_and_bad_ones_a_reason(tmp_path: Path) -> None:
    capture = write_open3d(room_capture(12), tmp_path / "in/my.lab-2")
    given = build_capture(capture, tmp_path / "in/given.zarr", CaptureOptions(frames=2))[0]
    given.path.rename(tmp_path / "in/renamed.zarr")
    build_capture(capture, tmp_path / "in/given.zarr", CaptureOptions(frames=2))
    (tmp_path / "in/empty").mkdir()
    named = ["my.lab-2", "given.zarr", "renamed.zarr", "empty"]
    captures = {name.removesuffix(".zarr"): tmp_path / "in" / name for name in named}
    scenes = tmp_path / "results/scenes"
    manifest = scenes / "shards/mylab-000.json"
    build_capture_shard(captures, 3, out_folder=scenes, manifest=manifest)

    content = json.loads(manifest.read_text())
    frames = {scene: row["frames"] for scene, row in content["scenes"].items()}
    assert frames == {"my.lab-2": 3, "given": 2}
    for scene, row in content["scenes"].items():
        assert SceneStore.open(scenes / f"{scene}.zarr").content_hash() == row["content"]
    assert SceneStore.open(scenes / "given.zarr").content_hash() == given.content_hash()
    assert verify_results(tmp_path / "results") == []
    reasons = read_excluded(manifest)
    assert list(reasons) == ["renamed", "empty"]
    assert "is the store of given (own); name one" in reasons["renamed"]
    assert "leave it its first name, as given.zarr here" in reasons["renamed"]
    assert str(captures["empty"]) in reasons["empty"]
    assert "`threedrs scene build` takes" in reasons["empty"]

    out = scenes / "report/mylab-000"
    scans = [DataLayout(root=tmp_path).own_scan(scene) for scene in captures]
    write_shard_facts(scans, scenes, manifest, None, out)
    rows = json.loads((out / ROWS_FILE).read_text())
    assert [(row["scene"], row["split"]) for row in rows["scenes"]] == [
        ("my.lab-2", "mylab"),
        ("given", "mylab"),
    ]
    assert any("rough" in note for note in rows["scenes"][0]["notes"])
    assert {row["split"] for row in rows["left_out"]} == {"mylab"}
