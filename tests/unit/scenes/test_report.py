"""The scene report: every fault of a scan that is survived has its line; the page and pictures."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from PIL import Image
from typer.testing import CliRunner

from fixtures.scan_files import BOXES, FRAMES, SETTINGS, build_scene, make_scan, write_sens
from threedrs.cli import app
from threedrs.errors import MachineError
from threedrs.scannet.boxes import extract_boxes, read_boxes_file
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.scannet.layout import ScanFiles
from threedrs.scenes.build import build_shard
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.report import ROWS_FILE, scene_facts, write_scene_report, write_shard_facts
from threedrs.scenes.store import SceneStore
from threedrs.visualization.rerun_export import write_recording

# A plane of vertices two metres ahead of the first camera, and a few far away that none sees.
VERTICES = np.array(
    [[x / 20, y / 20, 2.0] for x in range(-20, 20) for y in range(-16, 16)]
    + [[40.0 + x / 20, 40.0, 2.0] for x in range(160)]
)


def write_mesh(scan: ScanFiles, object_ids: tuple[int, ...] = (0, 1)) -> None:
    import open3d

    mesh = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(VERTICES),
        open3d.utility.Vector3iVector(np.array([[0, 1, 2]])),
    )
    open3d.io.write_triangle_mesh(str(scan.mesh), mesh)
    segments = [row // 32 for row in range(len(VERTICES))]
    groups = [
        {"objectId": number, "label": "desk", "segments": [2 * place, 2 * place + 1]}
        for place, number in enumerate(object_ids)
    ]
    scan.segments.write_text(json.dumps({"segIndices": segments}))
    scan.aggregation.write_text(json.dumps({"segGroups": groups}))


def write_proposals(scan: ScanFiles, masks: list[list[int]], vertices: int = len(VERTICES)) -> None:
    matrix = np.zeros((len(masks), vertices), dtype=np.uint8)
    for row, mask in enumerate(masks):
        matrix[row, mask] = 1
    scan.proposals.parent.mkdir(parents=True, exist_ok=True)
    scipy.sparse.save_npz(scan.proposals, scipy.sparse.csr_matrix(matrix))


def report_of(root: Path, scan: ScanFiles, **settings: Any) -> tuple[list[dict[str, Any]], str]:
    """Run boxes, scene store, facts and page on one val scan; return the rows and the page."""
    results = root / "results"
    boxes, manifest = results / "boxes.json", results / "scenes" / "shards" / "val-000.json"
    extract_boxes([scan], boxes)
    build_shard(
        [scan],
        read_boxes_file(boxes),
        SceneSettings(**{"stride": 10, "count": 3, **settings}),
        results / "scenes",
        manifest,
        "val",
        excluded=read_excluded(boxes),
    )
    part = results / "scenes" / "report" / "val-000"
    write_shard_facts([scan], results / "scenes", manifest, boxes, part)
    page = results / "scenes" / "report.html"
    write_scene_report([part], page)
    return json.loads((part / ROWS_FILE).read_text())["scenes"], page.read_text()


def test_a_whole_scene_has_its_numbers_and_its_picture(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    write_mesh(scan)
    write_proposals(scan, [[0, 1, 2, 40], [500, 501]])
    (row,), page = report_of(tmp_path, scan)
    assert row["frame_ids"] == [0, 20, 40]
    assert row["boxes"] == {"gt": 2, "pred": 2}
    assert row["notes"] == [
        "1 of 5 candidate frames dropped (the pose is not finite): 10",
    ]
    assert row["notes"][0] in page
    assert 'href="report/val-000/scene0000_00.jpg"' in page
    assert 'src="report/val-000/scene0000_00.small.jpg"' in page
    images = tmp_path / "results/scenes/report/val-000"
    for name, size in (("scene0000_00.jpg", (1170, 558)), ("scene0000_00.small.jpg", (585, 279))):
        with Image.open(images / name) as image:
            assert image.size == size


def test_coverage_is_the_share_of_mesh_voxels_that_some_pixel_falls_in(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    write_mesh(scan)
    store = build_scene(scan, BOXES, SETTINGS, tmp_path / "scene0000_00.zarr", "train")
    row = scene_facts(store, scan, [])
    world = store.coordinates()[store.depth() > 0]
    alignment = np.array([[0, -1, 0, 1.0], [1, 0, 0, 2.0], [0, 0, 1, 0.5], [0, 0, 0, 1]])
    aligned = VERTICES @ alignment[:3, :3].T + alignment[:3, 3]
    mesh = {tuple(voxel) for voxel in np.rint(aligned / 0.1).astype(int).tolist()}
    seen = {tuple(voxel) for voxel in np.rint(world / 0.1).astype(int).tolist()}
    assert row["voxels"] == len(mesh)
    # coordinates are kept as float32, so a pixel on a voxel's edge may fall on either side
    assert row["coverage"] == pytest.approx(len(mesh & seen) / len(mesh), abs=0.01)
    assert 0.02 < row["coverage"] < 0.9


def test_missing_detector_boxes_and_repeated_frames_are_said(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    write_mesh(scan)
    (row,), page = report_of(tmp_path, scan, count=9)
    assert "no proposals (scene0000_00.mask.npz): no pred boxes" in row["notes"]
    assert "only 4 candidate frames for 9: frames are repeated" in row["notes"]
    assert "Evaluation scenes without detector boxes (1): scene0000_00." in page
    assert (row["frames"], row["different_frames"]) == (9, 4)
    assert "(4 different ones)" in page


def test_odd_ids_empty_masks_and_no_alignment_are_said(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    write_mesh(scan, object_ids=(3, 7))
    write_proposals(scan, [[0, 1], []])
    scan.meta.write_text("numColorFrames = 45\n")
    (row,), page = report_of(tmp_path, scan)
    expected = [
        "no axisAlignment in scene0000_00.txt: the scan's own frame is the world",
        "object ids are not 0..1 (last: 7): kept as ids",
        "proposal 1 masks no vertex: left out",
    ]
    assert row["notes"][:3] == expected
    assert row["boxes"] == {"gt": 2, "pred": 1}
    for note in expected:
        assert note.replace("'", "&#39;") in page


def no_pose(scan: ScanFiles) -> None:
    write_sens(scan.sens, invalid=tuple(range(FRAMES)))


def truncated_sens(scan: ScanFiles) -> None:
    os.truncate(scan.sens, scan.sens.stat().st_size - 100)


def foreign_proposals(scan: ScanFiles) -> None:
    write_proposals(scan, [[0]], vertices=len(VERTICES) - 1)


def foreign_segments(scan: ScanFiles) -> None:
    scan.segments.write_text(json.dumps({"segIndices": [0, 1, 2]}))


def damaged_mesh(scan: ScanFiles) -> None:
    scan.mesh.write_text("ply\nformat")


def damaged_alignment(scan: ScanFiles) -> None:
    scan.meta.write_text("axisAlignment = 1 2 3\n")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (no_pose, "has no candidate frame with a valid pose (45 frames, stride 10); lower "),
        (truncated_sens, "it is truncated"),
        (foreign_proposals, "proposals and mesh are not of the same scan version"),
        (foreign_segments, "mesh and segments are not of the same scan version"),
        (damaged_mesh, "holds no vertices that can be read"),
        (damaged_alignment, "axisAlignment has 3 numbers, expected 16"),
    ],
)
def test_a_scan_that_cannot_be_used_is_left_out_and_said(
    tmp_path: Path, spoil: Callable[[ScanFiles], None], reason: str
) -> None:
    scan = make_scan(tmp_path)
    write_mesh(scan)
    spoil(scan)
    os.utime(scan.sens, (1, 1))
    rows, page = report_of(tmp_path, scan)
    assert rows == []
    assert not (tmp_path / "results" / "scenes" / "scene0000_00.zarr").exists()
    assert "<h2>Left out</h2>" in page
    assert "1 scan cannot be used" in page
    assert "<td>scene0000_00</td><td>val</td>" in page
    assert reason in page.replace("&#39;", "'")
    assert "copy the named file again from where it came" in page


def test_a_mesh_that_only_the_report_reads_is_a_note(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    store = build_scene(scan, BOXES, SETTINGS, tmp_path / "scene0000_00.zarr", "train")
    damaged_mesh(scan)
    row = scene_facts(store, scan, ["a note"])
    assert row["coverage"] is None
    assert row["notes"][0] == "a note"
    assert row["notes"][1].startswith(f"coverage is not known: {scan.mesh}: holds no vertices")


def test_notes_are_escaped(tmp_path: Path) -> None:
    part = tmp_path / "report" / "val-000"
    part.mkdir(parents=True)
    row = {
        "scene": "scene0000_00",
        "split": "val",
        "source": "<b>.sens",
        "strategy": "uniform",
        "frame_ids": [0],
        "frames": 1,
        "different_frames": 1,
        "coverage": None,
        "voxels": None,
        "boxes": {"gt": 0, "pred": 0},
        "notes": ["object 1 (<script>) owns no vertex"],
    }
    (part / ROWS_FILE).write_text(json.dumps({"format_version": 1, "scenes": [row]}))
    said = {"notes": {"scene0000_00": ["imported <script>"]}, "counts": ["All <script>."]}
    write_scene_report([part], tmp_path / "report.html", **said)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<script>") == 1  # its own
    assert "owns no vertex<br>imported &lt;script&gt;</td>" in page
    assert '<p class="note">All &lt;script&gt;.</p>' in page
    assert "no mesh" in page
    assert "Scenes without ground-truth boxes (1): scene0000_00" in page


def test_scene_show_writes_a_picture(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    write_mesh(scan)
    store = build_scene(scan, BOXES, SETTINGS, tmp_path / "scene0000_00.zarr", "train")
    out = tmp_path / "look.png"
    said = CliRunner().invoke(
        app, ["scene", "show", str(store.path), "--out", str(out), "--data", str(tmp_path)]
    )
    assert said.exit_code == 0
    assert re.search(r"scene0000_00 \(train\): 3 frames, \d+ % of its voxels", said.output)
    assert "note: 1 of 5 candidate frames dropped" in said.output
    with Image.open(out) as picture:
        assert picture.format == "PNG"


def test_a_recording_without_rerun_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = make_scan(tmp_path)
    store = build_scene(scan, BOXES, SETTINGS, tmp_path / "scene0000_00.zarr", "train")
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MachineError, match="needs the Rerun SDK, which is not installed"):
        write_recording(SceneStore.open(store.path), tmp_path / "a.rrd")
    assert not (tmp_path / "a.rrd").exists()


def test_a_recording_is_written_where_rerun_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    scan = make_scan(tmp_path)
    store = build_scene(scan, BOXES, SETTINGS, tmp_path / "scene0000_00.zarr", "train")
    write_recording(store, tmp_path / "a.rrd")
    assert (tmp_path / "a.rrd").stat().st_size > 10_000
