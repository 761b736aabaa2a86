"""The generated data set: formats, geometry, and sentences that mean what they say."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import open3d as o3d
import pytest
import scipy.sparse

from threedrs.demo.annotations import annotate
from threedrs.demo.language import describe, eval_type
from threedrs.demo.mesh import build_mesh
from threedrs.demo.pieces import Room, plural
from threedrs.demo.relations import Query, resolve
from threedrs.demo.render import DEPTH_INTRINSIC, FrameRenderer
from threedrs.demo.rooms import THEMES, make_room
from threedrs.demo.situations import make_situated_questions
from threedrs.demo.trajectory import camera_walk
from threedrs.demo.write import demo_files, demo_scenes, write_demo
from threedrs.errors import ConfigError, DataError
from threedrs.layout import DataLayout
from threedrs.scannet.meta import read_axis_alignment
from threedrs.scannet.sens import SensReader

FRAMES = 21
SQA3D = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sqa3d"


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


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [
        make_room(theme, np.random.default_rng(number))
        for number, theme in zip(range(10), itertools.cycle(THEMES), strict=False)
    ]


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


def test_files_are_those_announced_and_bytes_follow_the_seed(
    data_root: Path, tmp_path: Path
) -> None:
    first = contents(data_root)
    assert sorted(first) == sorted(demo_files(2))
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
        environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
        environment["PYTHONHASHSEED"] = hash_seed
        command = [sys.executable, "-c", code]
        runs.append(
            subprocess.run(command, check=True, capture_output=True, env=environment).stdout
        )
    assert runs[0] == runs[1] != b""


def test_other_seed_other_rooms(rooms: list[Room]) -> None:
    again = make_room(next(iter(THEMES)), np.random.default_rng(0))
    assert [p.label for p in again.pieces] == [p.label for p in rooms[0].pieces]
    layouts = {tuple(float(v) for v in room.size) for room in rooms}
    assert len(layouts) == len(rooms)


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"holds files that are not a demo data set.*empty folder"):
        write_demo(tmp_path, 2, 0)
    assert contents(tmp_path) == {"thesis.tex": b"mine"}
    with pytest.raises(ConfigError, match="seed -1; valid are 0 and above"):
        write_demo(tmp_path / "new", 2, -1)
    (tmp_path / "demo.json").write_text('{"format_version": 99}')
    with pytest.raises(DataError, match=r"demo\.json: .*choose a new folder"):
        write_demo(tmp_path, 2, 0)


def test_older_demo_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    write_demo(tmp_path, 3, 1, frames=2, processes=1)
    (tmp_path / "notes.txt").write_text("mine")
    write_demo(tmp_path, 2, 1, frames=2, processes=1)
    assert sorted(contents(tmp_path)) == sorted([*demo_files(2), "notes.txt"])


def test_rooms_are_furnished_without_intersections(rooms: list[Room]) -> None:
    classes = set()
    for room in rooms:
        furniture = [p for p in room.furniture if p.label not in ("door", "window", "picture")]
        labels = [piece.label for piece in furniture]
        classes |= set(labels)
        assert 7 <= len(furniture) <= 12
        assert max(labels.count(label) for label in labels) >= 2
        assert [piece.id for piece in room.pieces] == list(range(len(room.pieces)))
        half = np.array(room.size[:2]) / 2
        for piece in room.furniture:
            assert (np.abs([piece.low[:2], piece.high[:2]]) <= half + 1e-6).all()
        for a, b in itertools.combinations(room.furniture, 2):
            if a.id == b.support or b.id == a.support:
                continue
            overlap = np.minimum(a.high, b.high) - np.maximum(a.low, b.low)
            assert overlap.min() <= 1e-6, (a.label, b.label)
    assert len(classes) >= 8


def test_boxes_of_vertices_are_the_rooms_pieces(data_root: Path) -> None:
    scan = DataLayout(root=data_root).scan("scene0001_00")
    room = make_room(
        list(THEMES)[1], np.random.default_rng(np.random.SeedSequence([3, 1]).spawn(6)[0])
    )
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
            frame = reader.frame(int(index))
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


def test_walk_stays_in_the_room_at_eye_height(rooms: list[Room]) -> None:
    for number, room in enumerate(rooms):
        poses = camera_walk(room, 104, np.random.default_rng(number))
        turns = poses[:, :3, :3]
        products = turns @ turns.transpose(0, 2, 1)
        np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-9)
        np.testing.assert_allclose(np.linalg.det(turns), 1.0)
        place = poses[:, :3, 3]
        assert (np.abs(place[:, :2]) < np.array(room.size[:2]) / 2 - 0.5).all()
        assert place[:, 2].min() > 1.28
        assert place[:, 2].max() < 1.72
        assert (poses[:, 2, 2] < 0.2).all()  # looks down or nearly level
        assert (poses[:, 2, 1] < -0.7).all()  # and holds the camera upright
        heading = np.unwrap(np.arctan2(poses[:, 1, 2], poses[:, 0, 2]))
        assert np.ptp(heading) > 1.6 * np.pi
        assert np.abs(np.diff(place, axis=0)).max() < 0.2
        for piece in room.furniture:
            if piece.high[2] > 1.25:
                apart = np.maximum(np.maximum(piece.low - place, place - piece.high), 0)
                assert np.linalg.norm(apart, axis=1).min() > 0.15, piece.label


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
        assert all(1 <= len(row["answers"]) <= 2 for row in scanqa)
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


@pytest.mark.skipif(not SQA3D.is_dir(), reason="shared/data/sqa3d is not beside the project")
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


def test_plain_descriptions_mean_exactly_their_objects(rooms: list[Room]) -> None:
    """Colour-and-class and superlative sentences, read back from their words alone."""
    read = {"plain": 0, "closest": 0, "on": 0, "size": 0}
    for number, room in enumerate(rooms):
        rows = annotate("scene0000_00", room, np.random.default_rng(number))
        pieces = list(room.furniture)
        labels = sorted({p.label for p in pieces}, key=len, reverse=True)
        word = "|".join(labels)
        colours = "|".join(sorted({str(p.colour) for p in pieces}))

        def named(text: str, pieces=pieces, word=word, colours=colours):
            match = re.fullmatch(rf"the (?:({colours}) )?({word})", text)
            found = [p for p in pieces if p.label == match[2] and match[1] in (None, p.colour)]
            assert len(found) == 1, text
            return found[0]

        for row in rows["scanrefer"]:
            text, target = row["description"], room.pieces[int(row["object_id"])]
            assert row["object_name"] == target.label.replace(" ", "_")
            assert target.label in text
            same = [p for p in pieces if p.label == target.label]
            body = text.rstrip(".")
            plain = re.fullmatch(
                rf"(?:the|this is an?|there is an?) (?:({colours}) )?({word})( in the room)?", body
            )
            closest = re.search(
                r"(?:closest to|nearest to|farthest from|farthest away from) (the [a-z ]+)", body
            )
            size = re.search(rf"the (tallest|shortest|largest|smallest) ({word}) in the room", body)
            on = re.search(r" on (?:top of )?(the [a-z ]+)$", body) if "side" not in body else None
            if plain:
                read["plain"] += 1
                assert [p for p in same if plain[1] in (None, p.colour)] == [target]
            elif closest:
                read["closest"] += 1
                anchor = named(closest[1])
                away = [float(np.hypot(*(p.centre - anchor.centre)[:2])) for p in same]
                choose = min if re.search("closest|nearest", body) else max
                assert same[away.index(choose(away))] is target
                assert len(same) > 1
            elif size:
                read["size"] += 1
                measure = [
                    p.high[2] - p.low[2] if size[1] in ("tallest", "shortest") else np.prod(p.size)
                    for p in same
                ]
                choose = max if size[1] in ("tallest", "largest") else min
                assert same[measure.index(choose(measure))] is target
            elif on:
                read["on"] += 1
                anchor = named(on[1])
                standing = [
                    p
                    for p in same
                    if (p.centre[:2] > anchor.low[:2]).all()
                    and (p.centre[:2] < anchor.high[:2]).all()
                    and p.low[2] > 0.2
                ]
                assert standing == [target]
    assert min(read.values()) >= 1, read


def test_multi_descriptions_mean_exactly_their_objects(rooms: list[Room]) -> None:
    seen = set()
    for number, room in enumerate(rooms):
        rows = annotate("scene0000_00", room, np.random.default_rng(number))["multi3drefer"]
        for row in rows:
            label = row["object_name"].replace("_", " ")
            same = [p for p in room.furniture if p.label == label]
            ids = row["object_ids"]
            seen.add(row["eval_type"])
            assert len(ids) == {"z": 0, "s": 1}.get(row["eval_type"][0], len(ids))
            assert set(ids) <= {p.id for p in same}
            if row["eval_type"] != "mt":
                distractors = len(same) > len(ids)
                assert row["eval_type"].endswith("_w_d") == distractors
            else:
                assert len(ids) >= 2
            if row["color"]:
                colour = next(c for c in row["description"].split() if c in _COLOURS)
                assert all(room.pieces[i].colour == colour for i in ids)
                if not row["spatial"]:
                    assert sorted(ids) == [p.id for p in same if p.colour == colour]
            if row["description"].startswith("both "):
                assert len(ids) == 2
    assert len(seen) == 5


_COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "brown", "white", "black"}


def test_counts_and_colours_in_scanqa_are_right(rooms: list[Room]) -> None:
    counted = coloured = 0
    for number, room in enumerate(rooms):
        for row in annotate("scene0000_00", room, np.random.default_rng(number))["scanqa"]:
            names = [room.pieces[i].label for i in row["object_ids"]]
            assert row["object_names"] == names
            if row["question"].startswith("How many"):
                counted += 1
                assert row["answers"][1] == str(len(row["object_ids"]))
                words = row["question"].split(" are ")[0].removeprefix("How many ").split()
                colour = words[0] if words[0] in _COLOURS else None
                expected = [
                    p.id
                    for p in room.furniture
                    if p.label == names[0] and colour in (None, p.colour)
                ]
                assert sorted(row["object_ids"]) == expected
            elif row["question"].startswith("What color is the"):
                coloured += 1
                (target,) = (room.pieces[i] for i in row["object_ids"])
                assert row["answers"] == [target.colour]
                asked = row["question"].removeprefix("What color is the").split(target.label)[0]
                assert not _COLOURS & set(asked.split())
    assert counted > 5
    assert coloured > 5


def test_situated_answers_hold_from_where_the_person_stands(rooms: list[Room]) -> None:
    """Sides again, by turning the room under the person instead of measuring bearings."""
    checked = 0
    for number, room in enumerate(rooms):
        for row in make_situated_questions(room, 16, np.random.default_rng(number)):
            here, question = row.situation, row.question
            cos, sin = np.cos(here.heading), np.sin(here.heading)

            def place(piece, here=here, cos=cos, sin=sin):
                dx, dy = piece.centre[:2] - here.position
                ahead, left = cos * dx + sin * dy, cos * dy - sin * dx
                if abs(ahead) > abs(left):
                    return "in front of me" if ahead > 0 else "behind me"
                return "on my left" if left > 0 else "on my right"

            match = re.search(r"(in front of me|behind me|on my left|on my right)\?", question.text)
            if match and question.text.startswith(("How many", "Is there")):
                checked += 1
                words = question.text.split(" are ")[0].split(" in front")[0].split(" behind")[0]
                words = words.split(" on my")[0]
                label = next(
                    p.label
                    for p in sorted(room.furniture, key=lambda p: -len(p.label))
                    if words.endswith((f" {p.label}", f" {plural(p.label)}"))
                )
                found = sum(p.label == label and place(p) == match[1] for p in room.furniture)
                numbers = ("zero", "one", "two", "three", "four", "five")
                said = question.answers[0]
                assert said == (
                    ("no", "yes")[found > 0] if said in ("no", "yes") else numbers[found]
                )
            elif match:
                checked += 1
                (target,) = (room.pieces[i] for i in question.object_ids)
                assert place(target) == match[1]
                assert question.answers == (target.colour,)
            elif question.text.startswith("On which side"):
                checked += 1
                (target,) = (room.pieces[i] for i in question.object_ids)
                assert place(target) == f"on my {question.answers[0]}"
            inside = np.array(room.size[:2]) / 2
            assert (np.abs(here.position) < inside).all()
            assert len(set(here.texts)) == 3
    assert checked > 40


def test_answers_do_not_follow_from_the_question(rooms: list[Room]) -> None:
    by_question: dict[str, set[str]] = {}
    for number, room in enumerate(rooms):
        rows = annotate("scene0000_00", room, np.random.default_rng(number))
        for row in rows["sqa3d"]:
            first = row["question"]["question"].split()[0]
            by_question.setdefault(first, set()).add(row["annotation"]["answers"][0]["answer"])
    assert {"yes", "no"} <= by_question["Is"]
    assert {"yes", "no"} <= by_question["Can"]
    assert {"left", "right", "forward", "backward"} <= by_question["Which"]
    assert len(by_question["What"] & _COLOURS) >= 6
    assert len(by_question["How"]) >= 3


def test_doubtful_queries_are_not_resolved(rooms: list[Room]) -> None:
    room = rooms[0]
    label = room.furniture[0].label
    same = frozenset(p.id for p in room.furniture if p.label == label)
    assert resolve(room, Query(label)) == same
    assert resolve(room, Query("piano")) == frozenset()
    assert eval_type(room, Query("piano")) == "zt_wo_d"
    assert describe(room, Query("ottoman"), np.random.default_rng(0)).count("ottoman") == 1
