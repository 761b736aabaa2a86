"""Scene stores from exported folders, from EmbodiedScan's candidates, and by coverage."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.plain_coverage import frame_voxels, plain_greedy, voxel_of
from fixtures.scan_files import BOXES, FRAMES, INTRINSIC, SETTINGS, TURN, make_pose, make_scan
from threedrs.errors import ConfigError, DataError
from threedrs.inputs.required_files import missing_inputs
from threedrs.scannet.boxes import aligned_vertices
from threedrs.scannet.layout import DataLayout, ScanFiles
from threedrs.scannet.posed_images import export_posed_images
from threedrs.scannet.sens import SensReader
from threedrs.scenes.build import build_scene, build_shard
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


def test_listed_frames_are_the_candidates(scan: ScanFiles, tmp_path: Path) -> None:
    listed = [44, 3, 10, 17, 29, 900]
    store = build_scene(scan, BOXES, SETTINGS, tmp_path / "x.zarr", "train", listed)
    assert store.frame_ids == [3, 17, 44]
    assert store.attributes["notes"] == [
        "2 of 6 candidate frames dropped (listed, but not in the scan or the pose is not finite): "
        "10, 900"
    ]
    np.testing.assert_array_equal(store.poses()[1], TURN @ make_pose(17).astype(np.float32))
    with pytest.raises(
        DataError, match=r"no candidate .* \(45 frames, 1 listed\).*data.candidates"
    ):
        build_scene(scan, BOXES, SETTINGS, tmp_path / "x.zarr", "train", [10])


def test_a_scene_that_is_not_listed_has_a_note(scan: ScanFiles, tmp_path: Path) -> None:
    manifest = tmp_path / "shards" / "train-000.json"
    for candidates, frames, note in (
        ({SCENE: [1, 2, 3]}, [1, 2, 3], None),
        (
            {"scene0009_00": [1]},
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
    settings = SETTINGS.replace(strategy=strategy, stride=4, count=2)
    store = build_scene(scan, BOXES, settings, tmp_path / "x.zarr", "train")
    mesh = {voxel_of(vertex) for vertex in aligned_vertices(scan)}
    with SensReader(scan.sens) as reader:
        sets = {
            frame: frame_voxels(reader.depth(frame), INTRINSIC, TURN @ reader.poses[frame], mesh)
            for frame in range(0, FRAMES, 4)
        }
    taken = plain_greedy(sets, strategy, 2)
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
        "only 44 candidate frames looked at for 60: all are taken"
    )


def test_coverage_reads_each_payload_once(
    scan: ScanFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int]] = []
    pread = os.pread

    def recording_pread(descriptor: int, size: int, offset: int) -> bytes:
        data = pread(descriptor, size, offset)
        reads.append((offset, offset + len(data)))
        return data

    monkeypatch.setattr(os, "pread", recording_pread)
    settings = SETTINGS.replace(strategy="coverage", stride=4, count=2)
    build_scene(scan, BOXES, settings, tmp_path / "x.zarr", "train")
    reads.sort()
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(reads))
    payloads = [stop - start for start, stop in reads if stop - start > 500]
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


def test_the_source_is_checked_before_a_run(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("scene0000_00\n" if split == "train" else "")
    layout = DataLayout(
        root=tmp_path,
        splits="{split}.txt",
        source="posed_images",
        candidates="embodiedscan/infos_{split}.pkl",
    )
    with pytest.raises(DataError) as caught:
        missing_inputs(layout, [])
    lines = str(caught.value).splitlines()
    names = {Path(line.partition(":")[0]).relative_to(tmp_path).as_posix() for line in lines}
    assert {
        "embodiedscan/infos_train.pkl",
        "embodiedscan/infos_val.pkl",
        f"scannet/posed_images/{SCENE}/intrinsic.txt",
        f"scannet/posed_images/{SCENE}/depth_intrinsic.txt",
    } <= names
    assert not any(name.endswith(".sens") for name in names)
    with pytest.raises(
        ConfigError, match="'images' is not known; choose one of sens, posed_images"
    ):
        DataLayout(root=tmp_path, source="images")
