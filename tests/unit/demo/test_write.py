"""The generated data set on disk: files that follow the seed, formats and geometry."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import open3d as o3d
import pytest
import scipy.sparse

from fixtures.real_data import SHIPPED
from fixtures.repository import ROOT
from fixtures.sens_files import frame_of
from threedrs.demo.camera_walk import camera_walk, draw_scanned_room
from threedrs.demo.render import DEPTH_INTRINSIC, FrameRenderer
from threedrs.demo.room_mesh import build_mesh
from threedrs.demo.rooms import THEMES, make_room
from threedrs.demo.write import (
    MARKER,
    check_files,
    check_folder,
    demo_files,
    demo_scenes,
    write_demo,
    write_marker,
)
from threedrs.errors import ConfigError, DataError
from threedrs.io.files import write_json
from threedrs.scannet.geometry import read_axis_alignment
from threedrs.scannet.layout import DataLayout
from threedrs.scannet.sens import SensReader
from threedrs.tasks import multi3drefer, scanrefer

FRAMES = 21
SQA3D = SHIPPED / "sqa3d"


def read_ply_vertices(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions and colours of a ScanNet-style PLY, by hand from its header."""
    data = path.read_bytes()
    header, body = data.split(b"end_header\n", 1)
    assert b"format binary_little_endian 1.0" in header
    count = int(re.search(rb"element vertex (\d+)", header)[1])
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgba", "u1", 4)], count)
    return rows["xyz"].astype(float), rows["rgba"]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "data"
    write_demo(out, 2, 3, frames=FRAMES, processes=1)
    return out


def test_three_of_seven_scenes_are_val() -> None:
    assert demo_scenes(2) == {"train": ["scene0000_00"], "val": ["scene0001_00"], "test": []}
    splits = demo_scenes(14)
    assert (len(splits["train"]), len(splits["val"])) == (8, 6)
    assert not set(splits["train"]) & set(splits["val"])
    with pytest.raises(ConfigError, match="1 scenes; valid are 2 to 10000"):
        demo_scenes(1)


def test_naming_files_needs_no_renderer() -> None:
    code = (
        "import sys, threedrs.demo.write as w; w.demo_files(3); sys.exit('open3d' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_things_are_described_in_training_rooms_alone(data_root: Path, tmp_path: Path) -> None:
    write_demo(tmp_path, 2, 3, frames=FRAMES, things=True, processes=1)
    without, with_things = contents(data_root), contents(tmp_path)
    changed = {name for name in without if with_things[name] != without[name]}
    assert with_things.keys() == without.keys()
    assert changed == {
        f"benchmark/{path.format(split='train')}" for path in (scanrefer.PATH, multi3drefer.PATH)
    }


@pytest.mark.slow
def test_files_are_those_announced_and_bytes_follow_the_seed(
    data_root: Path, tmp_path: Path
) -> None:
    first = contents(data_root)
    assert sorted(first) == sorted([MARKER, *demo_files(2)])
    write_demo(tmp_path, 2, 3, frames=FRAMES, processes=2)
    assert contents(tmp_path) == first


def test_hash_randomisation_changes_nothing() -> None:
    code = (
        "import numpy, json; from threedrs.demo.rooms import make_room;"
        "from threedrs.demo.annotations import annotate; g = numpy.random.default_rng;"
        "print(json.dumps(annotate('scene0000_00', make_room('studio', g(1)), g(2))))"
    )
    runs = []
    for hash_seed in "12":
        environment = {"PYTHONPATH": str(ROOT / "src")}
        environment["PYTHONHASHSEED"] = hash_seed
        command = [sys.executable, "-c", code]
        runs.append(
            subprocess.run(command, check=True, capture_output=True, env=environment).stdout
        )
    assert runs[0] == runs[1] != b""


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"holds files that are not a demo of.*empty folder"):
        check_folder(tmp_path, "scans")
    assert contents(tmp_path) == {"thesis.tex": b"mine"}
    with pytest.raises(ConfigError, match="seed -1; valid are 0 and above"):
        write_demo(tmp_path / "new", 2, -1)
    (tmp_path / "demo.json").write_text('{"format_version": 99}')
    with pytest.raises(DataError, match=r"no demo\.json of one"):
        check_folder(tmp_path, "scans")
    with pytest.raises(DataError, match=r"holds demo\.json, which demo data would replace"):
        write_demo(tmp_path, 2, 0)


def test_only_files_that_a_demo_writes_are_in_its_way(tmp_path: Path) -> None:
    chairs, lists = tmp_path / "benchmark/chairs/val.json", tmp_path / "scannet/scannetv2_val.txt"
    chairs.parent.mkdir(parents=True)
    chairs.write_text("mine")
    check_files(tmp_path, 2)
    lists.parent.mkdir()
    lists.write_text("mine")
    for check in (partial(check_files, tmp_path, 2), partial(write_demo, tmp_path, 2, 0)):
        with pytest.raises(DataError, match=r"holds scannet/scannetv2_val\.txt, which demo data"):
            check()
    spaced = tmp_path.rename(tmp_path.with_name("my rooms"))
    with pytest.raises(
        DataError, match=r"as in --config 'data=\{root: /.*/my rooms, demo: null\}'"
    ):
        check_files(spaced, 2)
    spaced.rename(tmp_path)
    assert sorted(contents(tmp_path).values()) == [b"mine", b"mine"]


def test_a_larger_demo_leaves_a_scan_that_no_older_one_wrote(tmp_path: Path) -> None:
    write_marker(tmp_path, "scans", 2, 0)
    for number in (1, 2):
        scan = DataLayout(root=tmp_path).scan(f"scene{number:04d}_00").sens
        scan.parent.mkdir(parents=True)
        scan.touch()
    check_files(tmp_path, 2)
    for check in (partial(check_files, tmp_path, 3), partial(write_demo, tmp_path, 3, 0)):
        with pytest.raises(DataError, match=r"holds scannet/scans/scene0002_00/.*would replace"):
            check()
    assert len(contents(tmp_path)) == 3


@pytest.mark.slow
def test_older_demo_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    write_demo(tmp_path, 3, 1, frames=2, processes=1)
    (tmp_path / "notes.txt").write_text("mine")
    write_demo(tmp_path, 2, 1, frames=2, processes=1)
    assert sorted(contents(tmp_path)) == sorted([MARKER, *demo_files(2), "notes.txt"])


@pytest.mark.parametrize("scenes", ["x", [14], 3.5, True, 1, 10_001, None])
@pytest.mark.parametrize("layout", ["scans", "published"])
def test_a_marker_that_names_no_number_of_rooms_marks_no_demo(
    tmp_path: Path, scenes: object, layout: str
) -> None:
    write_json(tmp_path / MARKER, {"format_version": 1, "layout": layout, "scenes": scenes})
    with pytest.raises(DataError, match=r"not a demo of layout"):
        check_folder(tmp_path, layout)
    with pytest.raises(DataError, match=r"holds demo.json, which demo data would replace"):
        check_files(tmp_path, 3)
    write_json(tmp_path / MARKER, {"format_version": 1, "layout": layout, "scenes": 14})
    check_folder(tmp_path, layout)


def test_boxes_of_vertices_are_the_rooms_pieces(data_root: Path) -> None:
    scan = DataLayout(root=data_root).scan("scene0001_00")
    seeds = np.random.SeedSequence([3, 1]).spawn(6)
    of_room, of_walk = (np.random.default_rng(seeds[index]) for index in (0, 2))
    room, _, _ = draw_scanned_room(list(THEMES)[1], FRAMES, of_room, of_walk)
    vertices, rgba = read_ply_vertices(scan.mesh)
    alignment = read_axis_alignment(scan.meta)
    assert np.abs(alignment - np.eye(4)).max() > 0.1
    aligned = vertices @ alignment[:3, :3].T + alignment[:3, 3]
    segments = np.array(json.loads(scan.segments.read_text())["segIndices"])
    groups = json.loads(scan.aggregation.read_text())["segGroups"]
    assert [group["objectId"] for group in groups] == list(range(len(room.pieces)))
    claimed = np.zeros(len(segments), int)
    for group, piece in zip(groups, room.pieces, strict=True):
        assert group["label"] == piece.label
        inside = np.isin(segments, group["segments"])
        claimed += inside
        tolerance = 2e-5 if piece.parts else 0.021  # skirting boards and a floor not quite level
        np.testing.assert_allclose(aligned[inside].min(axis=0), piece.low, atol=tolerance)
        np.testing.assert_allclose(aligned[inside].max(axis=0), piece.high, atol=tolerance)
        if piece.label not in ("wall", "floor"):
            assert len(group["segments"]) >= 1
    assert claimed.max() == 1
    assert 0 < (claimed == 0).mean() < 0.1
    assert len(vertices) > 3000
    assert len(np.unique(segments)) > 3 * len(groups)
    assert rgba[:, :3].std(axis=0).min() > 10


def test_depth_lies_on_the_mesh(data_root: Path) -> None:
    scan = DataLayout(root=data_root).scan("scene0000_00")
    mesh = o3d.io.read_triangle_mesh(str(scan.mesh))
    surface = o3d.t.geometry.RaycastingScene(nthreads=1)
    surface.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(mesh))
    with SensReader(scan.sens) as reader:
        assert len(reader) == FRAMES
        lost = ~reader.valid
        assert 1 <= lost.sum() <= 4
        assert lost[::10].any()
        assert np.isneginf(reader.poses[lost]).all()
        intrinsic = reader.header.intrinsic_depth
        assert not np.allclose(intrinsic, reader.header.intrinsic_color)
        for index in np.flatnonzero(reader.valid)[[0, 7, 14]]:
            frame = frame_of(reader, int(index))
            assert frame.color.shape == (484, 648, 3)
            assert frame.depth.shape == (480, 640)
            holes = frame.depth == 0
            assert 0.02 < holes.mean() < 0.4
            rows, columns = (grid[::7] for grid in np.nonzero(~holes))
            z = frame.depth[rows, columns] / 1000.0
            x = (columns - intrinsic[0, 2]) * z / intrinsic[0, 0]
            y = (rows - intrinsic[1, 2]) * z / intrinsic[1, 1]
            points = np.stack([x, y, z], axis=1) @ frame.pose[:3, :3].T + frame.pose[:3, 3]
            away = surface.compute_distance(points.astype(np.float32)).numpy()
            assert away.max() < 0.02
            assert away.max() > 0.0005  # the sensor is not perfect


def test_colour_and_depth_show_the_same_edges() -> None:
    """Where the picture's wall meets a strongly coloured piece, so does the depth's."""
    room = make_room("bedroom", np.random.default_rng(4))
    mesh = build_mesh(room)
    renderer = FrameRenderer(mesh, room.floor_style, np.random.SeedSequence(0))
    pose = camera_walk(room, 8, np.random.default_rng(0))[2].astype(np.float32)
    rows, columns = (grid.ravel() for grid in np.mgrid[0:480, 0:640])
    every = renderer._cast(pose, rows, columns)
    fast = renderer._cast_all(pose)
    np.testing.assert_allclose(
        fast.inverse_depth.ravel(), every.inverse_depth, rtol=2e-5, atol=1e-6
    )
    colors = [mesh.triangle_rgb[hits.triangle.ravel()] for hits in (every, fast)]
    assert (colors[0] == colors[1]).all(axis=1).mean() > 0.9999
    pixel = np.flatnonzero(every.triangle >= 0)[1234]
    direction = pose[:3, :3] @ np.array(
        [
            (columns[pixel] - DEPTH_INTRINSIC[0, 2]) / DEPTH_INTRINSIC[0, 0],
            (rows[pixel] - DEPTH_INTRINSIC[1, 2]) / DEPTH_INTRINSIC[1, 1],
            1.0,
        ]
    )
    corners = mesh.vertices[mesh.triangles[every.triangle[pixel]]]
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    depth = normal @ (corners[0] - pose[:3, 3]) / (normal @ direction)
    assert every.inverse_depth[pixel] == pytest.approx(1 / depth, rel=1e-4)


def test_proposals_resemble_objects_best_first(data_root: Path) -> None:
    scan = DataLayout(root=data_root).scan("scene0000_00")
    masks = scipy.sparse.load_npz(scan.proposals).toarray().astype(bool)
    segments = np.array(json.loads(scan.segments.read_text())["segIndices"])
    groups = json.loads(scan.aggregation.read_text())["segGroups"]
    truths = [
        np.isin(segments, group["segments"])
        for group in groups
        if group["label"] not in ("wall", "floor")
    ]
    best = np.array([max((m & t).sum() / (m | t).sum() for t in truths) for m in masks])
    assert masks.shape[1] == len(segments)
    assert len(truths) * 0.7 <= len(masks) <= len(truths) + 3
    assert masks.any(axis=1).all()
    assert (best > 0.5).sum() >= 0.7 * len(truths)
    assert (best < 0.5).sum() >= 1
    assert best.max() < 1
    assert best[: len(best) // 2].mean() > best[len(best) // 2 :].mean()


def test_label_table_has_scannets_columns(data_root: Path) -> None:
    rows = [
        line.split("\t") for line in DataLayout(root=data_root).labels_file.read_text().splitlines()
    ]
    assert all(len(row) == 17 for row in rows)
    assert rows[0][:8] == [
        "id", "raw_category", "category", "count", "nyu40id", "eigen13id", "nyuClass", "nyu40class"
    ]  # fmt: skip
    names = {row[1] for row in rows[1:]}
    for scene in ("scene0000_00", "scene0001_00"):
        scan = DataLayout(root=data_root).scan(scene)
        groups = json.loads(scan.aggregation.read_text())["segGroups"]
        assert {group["label"] for group in groups} <= names


def load(data_root: Path, name: str):
    return json.loads((data_root / "benchmark" / name).read_text())


def test_annotation_files_speak_of_their_splits_scenes(data_root: Path) -> None:
    layout = DataLayout(root=data_root)
    assert layout.scenes("test") == []
    for split in ("train", "val"):
        scenes = set(layout.scenes(split))
        refer = load(data_root, f"scanrefer/ScanRefer_filtered_{split}.json")
        fields = {"scene_id", "object_id", "object_name", "ann_id", "description", "token"}
        assert all(set(row) == fields and isinstance(row["object_id"], str) for row in refer)
        keys = [(row["scene_id"], row["object_id"], row["ann_id"]) for row in refer]
        assert len(set(keys)) == len(keys) == 10
        multi = load(data_root, f"multi3drefer/multi3drefer_{split}.json")
        kinds = {row["eval_type"] for row in multi}
        assert kinds == {"zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt"}
        assert len(multi) == 8
        scanqa = load(data_root, f"scanqa/ScanQA_v1.0_{split}.json")
        assert len({row["question_id"] for row in scanqa}) == len(scanqa) == 12
        most = 2 if split == "train" else 99
        assert all(1 <= len(row["answers"]) <= most for row in scanqa)
        assert all(len(row["object_ids"]) == len(row["object_names"]) for row in scanqa)
        for rows in (refer, multi, scanqa):
            assert {row["scene_id"] for row in rows} == scenes
    asked = {}
    for split in ("train", "val", "test"):
        name = "sqa_task/balanced/v1_balanced_{}_" + split + "_scannetv2.json"
        questions = load(data_root, name.format("questions"))["questions"]
        answers = load(data_root, name.format("sqa_annotations"))["annotations"]
        assert [row["question_id"] for row in questions] == [r["question_id"] for r in answers]
        assert all(len(row["alternative_situation"]) == 2 for row in questions)
        assert len(questions) == 8
        held_out = "train" if split == "train" else "val"
        assert {row["scene_id"] for row in questions} == set(layout.scenes(held_out))
        asked[split] = {(row["situation"], row["question"]) for row in questions}
        asked[split, "ids"] = {row["question_id"] for row in questions}
    assert not asked["val"] & asked["test"]
    assert not asked["val", "ids"] & (asked["test", "ids"] | asked["train", "ids"])


def test_sqa3d_has_the_published_structure(data_root: Path) -> None:
    for kind, key in (("questions", "questions"), ("sqa_annotations", "annotations")):
        name = f"v1_balanced_{kind}_test_scannetv2.json"
        real = json.loads((SQA3D / name).read_text())
        ours = load(data_root, f"sqa_task/balanced/{name}")
        assert set(ours) == set(real)
        real_row, our_row = real[key][0], ours[key][0]
        assert set(our_row) == set(real_row)
        assert {k: type(v) for k, v in our_row.items()} == {k: type(v) for k, v in real_row.items()}
        if key == "annotations":
            assert set(our_row["answers"][0]) == set(real_row["answers"][0])
            assert set(our_row["rotation"]) == set(real_row["rotation"])
            assert set(our_row["position"]) == set(real_row["position"])
