"""Scene stores from exported folders, from EmbodiedScan's candidates, and by coverage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.plain_coverage import frame_voxels, plain_greedy, voxel_of
from fixtures.published_files import save_torch
from fixtures.scan_files import (
    BOXES,
    FRAMES,
    INTRINSIC,
    SETTINGS,
    TURN,
    build_scene,
    make_pose,
    make_scan,
    record_reads,
)
from threedrs.errors import DataError
from threedrs.scannet.boxes import aligned_vertices
from threedrs.scannet.embodiedscan import SceneInfos
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.posed_images import export_posed_images
from threedrs.scannet.sens import SensReader
from threedrs.scenes.build import build_shard
from threedrs.scenes.published_lists import (
    PublishedLists,
    read_published_lists,
    read_selected_frames,
)
from threedrs.scenes.store import SceneStore

SCENE = "scene0000_00"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> ScanFiles:
    """A scan with a mesh: a wall before the cameras, of which each sees a part."""
    scan = make_scan(tmp_path_factory.mktemp("data"))
    x, y = np.meshgrid(np.arange(-2, 2.5, 0.05), np.arange(-2, 2.5, 0.05))
    vertices = np.stack([x, y, np.full(x.shape, 2.01)], axis=-1).reshape(-1, 3)
    rows = "\n".join(" ".join(f"{value:.4f}" for value in vertex) for vertex in vertices)
    scan.mesh.write_text(
        f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\nproperty float x\n"
        "property float y\nproperty float z\nelement face 1\n"
        f"property list uchar int vertex_indices\nend_header\n{rows}\n3 0 1 2\n"
    )
    return scan


@pytest.fixture(scope="module")
def exported(scan: ScanFiles) -> ScanFiles:
    export_posed_images(scan.sens, scan.posed_images, stride=5)
    return replace(scan, source="posed_images")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["uniform", "coverage"])
def test_an_export_gives_the_store_of_its_scan(
    scan: ScanFiles, exported: ScanFiles, tmp_path: Path, strategy: str
) -> None:
    settings = SETTINGS.replace(strategy=strategy)
    first = build_scene(scan, BOXES, settings, tmp_path / "sens.zarr", "train")
    second = build_scene(exported, BOXES, settings, tmp_path / "images.zarr", "train")
    assert first.frame_ids == second.frame_ids
    assert second.content_hash() == first.content_hash()
    assert second.attributes["notes"] == first.attributes["notes"]
    assert first.attributes["source"] == f"{SCENE}.sens"
    assert second.attributes["source"] == f"posed_images/{SCENE}"
    assert first.attributes["source_sha256"] != second.attributes["source_sha256"]


def test_only_chosen_images_are_opened(exported: ScanFiles, tmp_path: Path) -> None:
    folder = tmp_path / "posed_images" / SCENE
    folder.mkdir(parents=True)
    for file in exported.posed_images.iterdir():
        if file.suffix == ".txt" or file.stem in ("00000", "00020", "00040"):
            (folder / file.name).symlink_to(file)
        else:
            (folder / file.name).write_bytes(b"not an image")
    files = replace(exported, posed_images=folder)
    store = build_scene(files, BOXES, SETTINGS, tmp_path / "x.zarr", "train")
    assert store.frame_ids == [0, 20, 40]


def frames_of(listed: list[int]) -> PublishedLists:
    return PublishedLists(infos=SceneInfos(frames=listed))


def test_listed_frames_are_the_candidates(scan: ScanFiles, tmp_path: Path) -> None:
    listed = [44, 3, 10, 17, 29, 900]
    store = build_scene(scan, BOXES, SETTINGS, tmp_path / "x.zarr", "train", frames_of(listed))
    assert store.frame_ids == [3, 17, 44]
    assert store.attributes["notes"] == [
        "2 of 6 candidate frames dropped (listed, but not in the scan or the pose is not finite): "
        "10, 900"
    ]
    np.testing.assert_array_equal(store.poses()[1], TURN @ make_pose(17).astype(np.float32))
    with pytest.raises(
        DataError, match=r"no candidate .* \(45 frames, 1 listed\).*data.candidates"
    ):
        build_scene(scan, BOXES, SETTINGS, tmp_path / "x.zarr", "train", frames_of([10]))


def test_a_scene_that_is_not_listed_has_a_note(scan: ScanFiles, tmp_path: Path) -> None:
    manifest = tmp_path / "shards" / "train-000.json"
    for candidates, frames, note in (
        ({SCENE: frames_of([1, 2, 3])}, [1, 2, 3], None),
        (
            {"scene0009_00": frames_of([1])},
            [0, 20, 40],
            "not in EmbodiedScan's infos: candidates by stride 10",
        ),
        (None, [0, 20, 40], None),
    ):
        build_shard([scan], {SCENE: BOXES}, SETTINGS, tmp_path, manifest, "train", candidates)
        assert SceneStore.open(tmp_path / f"{SCENE}.zarr").frame_ids == frames
        notes = [entry["note"] for entry in json.loads(manifest.read_text())["notes"]]
        assert (note in notes) is (note is not None)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["coverage", "coverage90", "coverage95"])
def test_coverage_is_that_of_the_scans_own_mesh(
    scan: ScanFiles, tmp_path: Path, strategy: str
) -> None:
    count = 2 if strategy == "coverage" else None
    settings = SETTINGS.replace(
        strategy=strategy, stride=4, count=2, stop_at_count=count is not None
    )
    store = build_scene(scan, BOXES, settings, tmp_path / "x.zarr", "train")
    mesh = {voxel_of(vertex) for vertex in aligned_vertices(scan)}
    with SensReader(scan.sens) as reader:
        sets = {
            frame: frame_voxels(reader.depth(frame), INTRINSIC, TURN @ reader.poses[frame], mesh)
            for frame in range(0, FRAMES, 4)
        }
    taken = plain_greedy(sets, strategy, count)
    assert store.frame_ids == sorted(taken)
    assert store.attributes["strategy"] == strategy
    assert store.attributes["coverage"] == {
        "covered": len(set().union(*(sets[frame] for frame in taken))),
        "coverable": len(set().union(*sets.values())),
        "voxels": len(mesh),
    }
    assert len(store.jpegs()) == len(store.rgb()) == len(taken)
    store.verify()


@pytest.mark.slow
def test_strategies_differ_in_how_many_frames(scan: ScanFiles, tmp_path: Path) -> None:
    counts = {}
    for strategy in ("coverage90", "coverage95", "coverage"):
        settings = SETTINGS.replace(strategy=strategy, stride=1, count=60)
        store = build_scene(scan, BOXES, settings, tmp_path / "x.zarr", "train")
        counts[strategy] = len(store.frame_ids)
        assert store.frame_ids == sorted(set(store.frame_ids))
    assert 1 < counts["coverage90"] < counts["coverage95"] < counts["coverage"] == 44
    assert store.attributes["notes"][-1] == (
        "only 44 candidate frames to choose 60 from: all are taken"
    )


def test_coverage_reads_no_colour_but_of_the_chosen(
    scan: ScanFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = record_reads(monkeypatch)
    settings = SETTINGS.replace(strategy="coverage", stride=4, count=2)
    build_scene(scan, BOXES, settings, tmp_path / "x.zarr", "train")
    payloads = {start for start, stop in reads if stop - start > 500}
    assert len(payloads) == len(range(0, FRAMES, 4)) + 2  # depth of all looked at, colour of two


def test_a_mesh_that_no_frame_sees_or_that_is_missing(scan: ScanFiles, tmp_path: Path) -> None:
    settings = SETTINGS.replace(strategy="coverage90")
    other = tmp_path / "other.ply"
    other.write_text(scan.mesh.read_text().replace(" 2.0100", " 9.0100"))
    with pytest.raises(
        DataError, match=r"other\.ply: no depth pixel of 4 frames falls on the mesh"
    ):
        build_scene(replace(scan, mesh=other), BOXES, settings, tmp_path / "x.zarr", "train")
    none = tmp_path / "none.ply"
    with pytest.raises(DataError, match=r"none\.ply: the mesh is missing"):
        build_scene(replace(scan, mesh=none), BOXES, settings, tmp_path / "x.zarr", "train")


def published(scan: ScanFiles, folder: Path, cloud: Path | None = None) -> ScanFiles:
    """The scan as an exported folder, without any other file of its own."""
    none = folder / "none"
    shutil.copytree(scan.posed_images, folder / SCENE)
    return replace(
        scan,
        source="posed_images",
        posed_images=folder / SCENE,
        point_cloud=cloud,
        **dict.fromkeys(("sens", "mesh", "segments", "aggregation", "meta"), none),
    )


def test_matrices_of_embodiedscan_stand_in_for_the_scan(
    exported: ScanFiles, tmp_path: Path
) -> None:
    files = published(exported, tmp_path)
    infos = SceneInfos(
        frames=[0, 20, 40], axis_alignment=TURN.tolist(), depth_intrinsic=INTRINSIC.tolist()
    )
    expected = build_scene(exported, BOXES, SETTINGS, tmp_path / "a.zarr", "train")
    store = build_scene(
        files, BOXES, SETTINGS, tmp_path / "b.zarr", "train", PublishedLists(infos=infos)
    )
    assert store.frame_ids == expected.frame_ids == [0, 20, 40]
    for name in ("poses", "depth_intrinsic", "rgb", "depth", "patch_xyz"):
        np.testing.assert_array_equal(getattr(store, name)(), getattr(expected, name)())
    assert store.attributes["notes"] == []
    focal = np.diag([1.1, 1.1, 1, 1]) * INTRINSIC + INTRINSIC * (1 - np.eye(4))
    other = replace(infos, depth_intrinsic=focal.tolist())
    lists = PublishedLists(infos=replace(other, axis_alignment=np.eye(4).tolist()))
    store = build_scene(exported, BOXES, SETTINGS, tmp_path / "b.zarr", "train", lists)
    np.testing.assert_array_equal(store.poses(), expected.poses())
    np.testing.assert_array_equal(store.depth_intrinsic(), focal)
    assert store.attributes["notes"] == [
        f"the axis alignment of {SCENE}.txt is used, EmbodiedScan's is another",
        "EmbodiedScan's depth intrinsic is used, depth_intrinsic.txt has another",
    ]


def test_a_scene_whose_alignment_nothing_gives_is_excluded(
    exported: ScanFiles, tmp_path: Path
) -> None:
    files, manifest = published(exported, tmp_path), tmp_path / "shards" / "train-000.json"
    lists = {"scene0009_00": frames_of([1]), SCENE: PublishedLists()}
    build_shard([files], {SCENE: BOXES}, SETTINGS, tmp_path, manifest, "train", lists)
    (row,) = json.loads(manifest.read_text())["left_out"]
    assert row["scene"] == SCENE
    assert "EmbodiedScan's infos lack the scene" in row["reason"]


@pytest.mark.parametrize("source", ["point cloud", "voxels"])
def test_coverage_without_a_mesh(exported: ScanFiles, tmp_path: Path, source: str) -> None:
    settings = SETTINGS.replace(strategy="coverage90", count=2)
    expected = build_scene(exported, BOXES, settings, tmp_path / "a.zarr", "train")
    vertices = aligned_vertices(exported)
    infos = SceneInfos(frames=[0, 20, 30, 40], axis_alignment=TURN.tolist())
    cloud, voxels = None, None
    if source == "point cloud":
        cloud = save_torch(tmp_path / f"{SCENE}.pth", {"xyz": vertices.astype(np.float32)})
    else:
        voxels = np.unique(np.rint(vertices / 0.1).astype(np.int32), axis=0)
    files = published(exported, tmp_path, cloud)
    lists = PublishedLists(infos=infos, voxels_M3=voxels)
    store = build_scene(files, BOXES, settings, tmp_path / "b.zarr", "train", lists)
    assert store.frame_ids == expected.frame_ids
    assert store.attributes["coverage"] == expected.attributes["coverage"]


def test_the_published_choice_of_frames_is_taken_in_its_order(
    exported: ScanFiles, tmp_path: Path
) -> None:
    path = tmp_path / "scannet_select_frames.json"
    row = {
        "video_id": f"scannet/{SCENE}",
        "frame_files": [f"data/scannet/posed_images/{SCENE}/{n:05d}.jpg" for n in (40, 10, 0, 20)],
        "voxel_nums": [60, 20, 15, 5],
        "num_all_voxels": 100,
        "num_select_voxels": 100,
    }
    path.write_text(json.dumps([{**row, "video_id": "scannet/scene0009_00"}, row]))
    lists = read_published_lists([SCENE], selected=path)[SCENE]
    expected = {
        ("coverage", 2, True): [40],  # and frame 10, which has no pose
        ("coverage", 3, True): [0, 40],
        ("coverage90", 8, True): [0, 40],  # 60 + 20 + 15 of 100
        ("coverage95", 8, True): [0, 40],
        ("coverage95", 1, True): [40],
        ("coverage95", 1, False): [0, 40],
        ("coverage", 8, True): [0, 20, 40],
    }
    for (strategy, count, stop), frames in expected.items():
        settings = SETTINGS.replace(strategy=strategy, count=count, stop_at_count=stop)
        store = build_scene(exported, BOXES, settings, tmp_path / "a.zarr", "train", lists)
        assert store.frame_ids == frames
    assert store.attributes["notes"][-2:] == [
        "the published list holds only 4 frames for 8",
        "1 of 4 published frames are no candidates: 10",
    ]
    assert "looked at" not in str(store.attributes["notes"])
    lost = replace(lists, selected=replace(lists.selected, frames=(10, 11, 12, 13)))
    with pytest.raises(DataError, match=r"none of the 4 frames that data\.selected_frames lists"):
        build_scene(exported, BOXES, settings, tmp_path / "a.zarr", "train", lost)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": 3}, "entry 0.video_id: 3 is not of type .string."),
        ({"frame_files": "a.jpg"}, "entry 0.frame_files: .a.jpg. is not of type .array."),
        ({"frame_files": []}, "frame_files: .* should be non-empty"),
        ({"frame_files": ["a/scene0001_00/00000.jpg"]}, "expected .*/scene0000_00/<frame>.jpg"),
        ({"frame_files": ["scene0000_00/00000.jpg"] * 2}, "names an image twice"),
        ({"voxel_nums": [1, 2]}, "voxel_nums is not a number for each image"),
        ({"num_all_voxels": None}, "num_all_voxels: None is not of type .integer."),
        ({"voxel_nums": [-1]}, "voxel_nums.0: -1 is less than the minimum of 0"),
    ],
)
def test_malformed_choices_name_the_entry(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    row = {
        "video_id": f"scannet/{SCENE}",
        "frame_files": [f"{SCENE}/00000.jpg"],
        "voxel_nums": [1],
        "num_all_voxels": 1,
    }
    path = tmp_path / "frames.json"
    path.write_text(json.dumps([row | change]))
    with pytest.raises(DataError, match=message) as caught:
        read_selected_frames(path, [SCENE])
    assert str(path) in str(caught.value)
