import errno
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from threedrs.errors import ConfigError, DataError, StoreError
from threedrs.layout import DataLayout, ScanFiles
from threedrs.scannet.boxes import BoxSet, make_box_set
from threedrs.scannet.sens import SensHeader, SensReader, SensWriter
from threedrs.scenes import writer, zarr_io
from threedrs.scenes.build import SceneSettings, build_scene, build_shard
from threedrs.scenes.masks import frame_masks
from threedrs.scenes.store import SceneStore

COLOR, DEPTH = (80, 60), (64, 48)  # width, height
INTRINSIC = np.array([[57.0, 0, 31.5, 0], [0, 58.0, 23.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
TURN = np.array([[0, -1, 0, 1.0], [1, 0, 0, 2.0], [0, 0, 1, 0.5], [0, 0, 0, 1]])
SETTINGS = SceneSettings(stride=10, count=3)
FRAMES = 45  # candidates 0, 20, 30, 40: frame 10 has no pose
BOXES = {
    "gt": make_box_set(
        [(np.array([1.0, 2.0, 2.5, 6, 6, 1.0]), 4, "desk"), (np.full(6, 50.0), 9, "far lamp")]
    ),
    "pred": make_box_set([(np.array([1.5, 2.0, 2.5, 2, 2, 2]), 0, "")]),
}


def make_pose(frame: int) -> np.ndarray:
    angle = 0.02 * frame
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = [0.01 * frame, 0.25, 0]
    return pose


def write_sens(
    path: Path,
    *,
    seed: int = 0,
    frames: int = FRAMES,
    invalid: tuple[int, ...] = (10,),
    color: str = "jpeg",
    depth_shift: float = 1000.0,
) -> None:
    generator = np.random.default_rng(seed)
    header = SensHeader(
        sensor_name="made for a test",
        intrinsic_color=INTRINSIC,
        extrinsic_color=np.eye(4),
        intrinsic_depth=INTRINSIC,
        extrinsic_depth=np.eye(4),
        color_compression=color,
        color_width=COLOR[0],
        color_height=COLOR[1],
        depth_width=DEPTH[0],
        depth_height=DEPTH[1],
        depth_shift=depth_shift,
    )
    with SensWriter(path, header) as sens:
        for frame in range(frames):
            pixels = generator.integers(0, 256, (COLOR[1], COLOR[0], 3)).astype(np.uint8)
            depth = generator.integers(1500, 2500, (DEPTH[1], DEPTH[0])).astype(np.uint16)
            depth[:12, 40:] = 0
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, format="JPEG")
            payload = pixels.tobytes() if color == "raw" else stream.getvalue()
            pose = np.full((4, 4), -np.inf) if frame in invalid else make_pose(frame)
            sens.add(pose, payload, depth)


def make_scan(root: Path, scene: str = "scene0000_00", **options: Any) -> ScanFiles:
    scan = DataLayout(root=root).scan(scene)
    scan.sens.parent.mkdir(parents=True)
    write_sens(scan.sens, **options)
    scan.meta.write_text(f"axisAlignment = {' '.join(map(str, TURN.ravel()))}\n")
    return scan


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> ScanFiles:
    return make_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def built(scan: ScanFiles, tmp_path_factory: pytest.TempPathFactory) -> SceneStore:
    out = tmp_path_factory.mktemp("scenes") / "scene0000_00.zarr"
    return build_scene(scan, BOXES, SETTINGS, out, "train")


@pytest.fixture
def copy(built: SceneStore, tmp_path: Path) -> Path:
    """A store that a test may damage."""
    return Path(shutil.copytree(built.path, tmp_path / "scene0000_00.zarr"))


def test_values_against_a_slow_reading_of_the_scan(scan: ScanFiles, built: SceneStore) -> None:
    assert built.frame_ids == [0, 20, 40]
    assert (built.scene, built.split, built.depth_size) == ("scene0000_00", "train", DEPTH)
    np.testing.assert_array_equal(built.depth_intrinsic(), INTRINSIC)
    coordinates, patch_xyz = built.coordinates(), built.patch_xyz()
    with SensReader(scan.sens) as reader:
        payloads = b""
        for row, frame_id in enumerate(built.frame_ids):
            frame = reader.frame(frame_id)
            payloads += reader.color_bytes(frame_id) + reader.depth_bytes(frame_id)
            assert built.jpegs()[row] == reader.color_bytes(frame_id)
            square = Image.fromarray(frame.color).resize((384, 384), Image.Resampling.BICUBIC)
            np.testing.assert_array_equal(built.rgb()[row], np.asarray(square))
            pose = TURN @ frame.pose
            np.testing.assert_array_equal(built.poses()[row], pose)
            for v, u in ((0, 0), (5, 300), (200, 17), (383, 383), (377, 377)):
                source_v, source_u = int(v * 48 / 384), int(u * 64 / 384)
                depth = frame.depth[source_v, source_u]
                assert built.depth()[row, v, u] == depth
                z = depth / 1000
                point = [(source_u - 31.5) * z / 57, (source_v - 23.5) * z / 58, z, 1]
                np.testing.assert_allclose(
                    coordinates[row, v, u], (pose @ point)[:3], rtol=0, atol=1e-6
                )
        source = hashlib.sha256(reader.header_bytes + payloads).hexdigest()
    assert built.attributes["source_sha256"] == source
    for row, v, u in ((0, 0, 0), (1, 13, 13), (2, 0, 13), (2, 6, 3)):
        block = coordinates[row, 27 * v : 27 * v + 27, 27 * u : 27 * u + 27].astype(np.float64)
        np.testing.assert_allclose(patch_xyz[row, v, u], block.mean(axis=(0, 1)), atol=1e-6)


def test_masks_follow_from_what_the_store_gives(built: SceneStore) -> None:
    for name in ("gt", "pred"):
        boxes = built.boxes(name)
        np.testing.assert_array_equal(boxes.boxes, BOXES[name].boxes)
        np.testing.assert_array_equal(boxes.ids, BOXES[name].ids)
        assert boxes.labels == BOXES[name].labels
        fine, coarse = built.masks(name)
        assert fine.dtype == coarse.dtype == bool
        for row, coordinates in enumerate(built.coordinates()):
            expected = frame_masks(coordinates, boxes.boxes)
            np.testing.assert_array_equal(fine[:, row], expected[0])
            np.testing.assert_array_equal(coarse[:, row], expected[1])
    seen = built.masks("gt")[0].any(axis=(1, 2, 3))
    assert seen.tolist() == [True, False]


def test_missing_depth_can_be_ignored(scan: ScanFiles, built: SceneStore, tmp_path: Path) -> None:
    ignoring = build_scene(
        scan, BOXES, replace(SETTINGS, invalid_depth="ignore"), tmp_path / "ignore.zarr", "train"
    )
    camera = built.poses()[0, :3, 3]
    # Patch (1, 12) lies in the hole; patch (3, 8) is half measured; patch (8, 3) wholly.
    for patch_xyz in (built.patch_xyz(), ignoring.patch_xyz()):
        np.testing.assert_allclose(patch_xyz[0, 1, 12], camera, atol=1e-6)
    block, depth = (
        array[0, 81:108, 216:243] for array in (ignoring.coordinates(), ignoring.depth())
    )
    assert 0 < (depth > 0).mean() < 1
    np.testing.assert_allclose(
        ignoring.patch_xyz()[0, 3, 8], block[depth > 0].mean(axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        built.patch_xyz()[0, 3, 8], block.reshape(-1, 3).mean(axis=0), atol=1e-5
    )
    np.testing.assert_array_equal(built.patch_xyz()[0, 8, 3], ignoring.patch_xyz()[0, 8, 3])
    around_camera = make_box_set([(np.array([*camera, 0.2, 0.2, 0.2]), 1, "camera")])
    boxes = {"gt": around_camera, "pred": BoxSet.empty()}
    for settings, sees in ((SETTINGS, True), (replace(SETTINGS, invalid_depth="ignore"), False)):
        store = build_scene(scan, boxes, settings, tmp_path / "camera.zarr", "train")
        assert bool(store.masks("gt")[0].any()) is sees
    assert ignoring.content_hash() != built.content_hash()


def test_layout_on_disk_is_the_specified_one(built: SceneStore) -> None:
    group = zarr.open_group(built.path, mode="r")
    assert group.metadata.zarr_format == 3
    frames, objects = 3, {"gt": 2, "pred": 1}
    expected = {
        "rgb": ((frames, 384, 384, 3), "uint8", (1, 384, 384, 3)),
        "depth": ((frames, 384, 384), "uint16", (1, 384, 384)),
        "pose": ((frames, 4, 4), "float64", None),
        "depth_intrinsic": ((4, 4), "float64", None),
        "patch_xyz": ((frames, 14, 14, 3), "float32", None),
    }
    for name, count in objects.items():
        expected[f"boxes/{name}"] = ((count, 6), "float32", None)
        expected[f"boxes/{name}_ids"] = ((count,), "int32", None)
        expected[f"masks/{name}/fine"] = ((count, frames, 92), "uint8", None)
        expected[f"masks/{name}/coarse"] = ((count, frames, 25), "uint8", None)
    for name, (shape, dtype, chunks) in expected.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert (array.shape, str(array.dtype)) == (shape, dtype)
        files = [path for path in (built.path / name / "c").rglob("*") if path.is_file()]
        assert len(files) == 1
        if chunks is not None:
            assert array.chunks == chunks
            assert array.shards == array.shape
        assert "crc32c" in (built.path / name / "zarr.json").read_text()
    assert group["depth_intrinsic"].attrs["depth_size"] == list(DEPTH)
    attributes = dict(group.attrs)
    assert attributes["format_version"] == 1
    assert attributes["frame_ids"] == [0, 20, 40]
    assert (attributes["stride"], attributes["strategy"]) == (10, "uniform")
    assert attributes["source"] == "scene0000_00.sens"
    assert {"scene", "split", "source_sha256", "threedrs_version", "content"} <= set(attributes)
    assert attributes["notes"] == ["1 of 5 candidate frames dropped (the pose is not finite): 10"]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_building_is_deterministic(scan: ScanFiles, built: SceneStore, tmp_path: Path) -> None:
    again = build_scene(scan, BOXES, SETTINGS, tmp_path / "again.zarr", "train")
    assert folder_bytes(again.path) == folder_bytes(built.path)


def test_content_hash_is_of_values_not_of_encoding(copy: Path, built: SceneStore) -> None:
    group = zarr.open_group(copy, mode="r+")
    rgb = group["rgb"][...]
    group.create_array("rgb", data=rgb, chunks=(1, 96, 96, 3), compressors=None, overwrite=True)
    group.attrs.update({"threedrs_version": "9.9", "source": "elsewhere"})
    store = SceneStore.open(copy)
    store.verify()
    assert store.content_hash() == built.content_hash()


def test_content_hash_tells_values_apart(
    scan: ScanFiles, built: SceneStore, tmp_path: Path
) -> None:
    other = tmp_path / "other.sens"
    write_sens(other, seed=1)
    relabelled = replace(BOXES["gt"], labels=("table", "far lamp"))
    hashes = {built.content_hash()}
    for files, boxes, split in (
        (replace(scan, sens=other), BOXES, "train"),
        (scan, {**BOXES, "gt": relabelled}, "train"),
        (scan, {**BOXES, "gt": replace(BOXES["gt"], ids=np.array([4, 8], np.int32))}, "train"),
        (scan, BOXES, "val"),
    ):
        store = build_scene(files, boxes, SETTINGS, tmp_path / "x.zarr", split)
        store.verify()
        hashes.add(store.content_hash())
    assert len(hashes) == 5


READS: dict[str, Callable[[SceneStore], Any]] = {
    "rgb": SceneStore.rgb,
    "depth": SceneStore.depth,
    "jpeg": SceneStore.jpegs,
    "patch_xyz": SceneStore.patch_xyz,
    "pose": SceneStore.poses,
    "boxes/gt": lambda store: store.boxes("gt"),
    "masks/pred/fine": lambda store: store.masks("pred"),
}


def chunk_file(store: Path, array: str) -> Path:
    return next(path for path in (store / array / "c").rglob("*") if path.is_file())


@pytest.mark.parametrize("array", READS)
def test_damaged_chunks_are_one_error(copy: Path, array: str) -> None:
    file = chunk_file(copy, array)
    whole = file.read_bytes()
    store = SceneStore.open(copy)
    READS[array](store)
    damages = [whole[: len(whole) // 2], b"", None]
    for position in np.linspace(0, len(whole) - 1, 12).astype(int):
        damages.append(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
    for damage in damages:
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        with pytest.raises(StoreError, match=f"array {array} is damaged") as caught:
            READS[array](store)
        assert str(copy) in str(caught.value)
        assert "snakemake scenes" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(StoreError, match=f"array {array} is damaged"):
            store.verify()
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(whole)
    store.verify()


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_other_versions_are_refused_with_a_remedy(copy: Path) -> None:
    edit_json(copy / "zarr.json", lambda group: group["attributes"].update(format_version=7))
    message = "format version 7, this release reads version 1; .*snakemake scenes"
    with pytest.raises(StoreError, match=message):
        SceneStore.open(copy)


def test_missing_and_foreign_parts_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.zarr: there is no scene store here"):
        SceneStore.open(tmp_path / "none.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(StoreError, match=r"empty\.zarr: is not a readable scene store"):
        SceneStore.open(tmp_path / "empty.zarr")
    shutil.move(copy / "depth", tmp_path / "depth")
    with pytest.raises(StoreError, match="array depth is missing"):
        SceneStore.open(copy)
    shutil.move(tmp_path / "depth", copy / "depth")
    whole = (copy / "patch_xyz" / "zarr.json").read_text()
    (copy / "patch_xyz" / "zarr.json").write_text(whole[:100])
    with pytest.raises(StoreError, match="array patch_xyz is damaged"):
        SceneStore.open(copy)
    (copy / "patch_xyz" / "zarr.json").write_text(whole)
    group = zarr.open_group(copy, mode="r+")
    for shape, dtype in (((3, 14, 14), "float32"), ((3, 14, 14, 3), "float16")):
        group.create_array("patch_xyz", shape=shape, dtype=dtype, overwrite=True)
        with pytest.raises(
            StoreError, match=r"array patch_xyz has shape .* expected \(3, 14, 14, 3\) and float32"
        ):
            SceneStore.open(copy)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scene", "scene0000_01", "do not fit the content hash"),
        ("frame_ids", [0, 20, 30], "do not fit the content hash"),
        ("frame_ids", [0, 20], "array rgb has shape"),
        ("frame_ids", [0, "20", 30], "frame_ids is not a list of frame numbers"),
        ("invalid_depth", None, "attribute invalid_depth is missing or malformed"),
        ("content", "0" * 64, "do not fit the content hash"),
        ("digests", {"rgb": 1}, "attribute digests is malformed"),
    ],
)
def test_damaged_attributes(copy: Path, name: str, value: Any, message: str) -> None:
    edit_json(copy / "zarr.json", lambda group: group["attributes"].update({name: value}))
    with pytest.raises(StoreError, match=message):
        SceneStore.open(copy)


def test_damaged_labels_and_size(copy: Path) -> None:
    labels = copy / "boxes" / "gt" / "zarr.json"
    edit_json(labels, lambda array: array["attributes"].update(labels=["desk"]))
    with pytest.raises(StoreError, match="attribute labels of array boxes/gt"):
        SceneStore.open(copy)
    edit_json(labels, lambda array: array["attributes"].update(labels=["desk", "near lamp"]))
    with pytest.raises(StoreError, match="do not fit the content hash"):
        SceneStore.open(copy)


def test_unknown_box_set(built: SceneStore) -> None:
    with pytest.raises(StoreError, match="no box set 'mask3d'; choose one of gt, pred"):
        built.boxes("mask3d")


def test_a_failed_build_leaves_the_old_store(
    scan: ScanFiles, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder_bytes(copy.parent)

    def full_disk(*arguments: Any, **options: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, "write_bytes", full_disk)
    with pytest.raises(StoreError, match=r"scene0000_00\.zarr: cannot be written \(No space left"):
        build_scene(scan, BOXES, SETTINGS, copy, "train")
    assert folder_bytes(copy.parent) == before


def test_only_chosen_payloads_are_read_and_once(
    scan: ScanFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int]] = []
    pread = os.pread

    def recording_pread(descriptor: int, size: int, offset: int) -> bytes:
        data = pread(descriptor, size, offset)
        reads.append((offset, offset + len(data)))
        return data

    monkeypatch.setattr(os, "pread", recording_pread)
    build_scene(scan, BOXES, SETTINGS, tmp_path / "x.zarr", "train")
    reads.sort()
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(reads))
    payload_reads = [stop - start for start, stop in reads if stop - start > 500]
    assert len(payload_reads) == 2 * SETTINGS.count


def test_no_valid_pose_is_an_error_and_few_frames_a_note(tmp_path: Path) -> None:
    lost = make_scan(tmp_path, invalid=tuple(range(FRAMES)))
    with pytest.raises(DataError, match="scene0000_00 has no candidate frame with a valid pose"):
        build_scene(lost, BOXES, SETTINGS, tmp_path / "x.zarr", "train")
    short = make_scan(tmp_path, "scene0001_00", frames=11, invalid=())
    store = build_scene(short, BOXES, replace(SETTINGS, count=5), tmp_path / "short.zarr", "train")
    assert store.frame_ids == [0, 0, 0, 0, 10]
    assert store.attributes["notes"] == ["only 2 candidate frames for 5: frames are repeated"]
    for array in (store.rgb(), store.depth(), store.patch_xyz(), store.masks("gt")[0][0]):
        np.testing.assert_array_equal(array[0], array[3])
    assert store.jpegs()[0] == store.jpegs()[3] != store.jpegs()[4]


def test_raw_colour_and_another_depth_unit(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, color="raw", depth_shift=5000.0, invalid=())
    store = build_scene(scan, BOXES, replace(SETTINGS, count=1), tmp_path / "x.zarr", "val")
    with SensReader(scan.sens) as reader:
        frame = reader.frame(0)
    with Image.open(io.BytesIO(store.jpegs()[0])) as image:
        np.testing.assert_array_equal(np.asarray(image), frame.color)
    assert store.depth()[0, -1, 0] == round(int(frame.depth[-1, 0]) / 5)


def test_focal_length_must_be_positive(scan: ScanFiles, tmp_path: Path) -> None:
    broken = tmp_path / "broken.sens"
    with SensReader(scan.sens) as reader:
        start = reader.header_bytes.index(INTRINSIC.astype("<f4").tobytes()) + 128
    content = bytearray(scan.sens.read_bytes())
    content[start : start + 4] = bytes(4)
    broken.write_bytes(content)
    with pytest.raises(DataError, match="focal length is not positive"):
        build_scene(replace(scan, sens=broken), BOXES, SETTINGS, tmp_path / "x.zarr", "train")


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


@pytest.mark.parametrize("what", ["boxes", "alignment", "settings", "damage", "code"])
def test_what_else_remakes_a_scene(
    shard: Shard, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = shard.build()
    built, settings = shard.identities(), SETTINGS
    scene, untouched = shard.scans[0], what in ("boxes", "alignment", "damage")
    if what == "boxes":
        shard.boxes[scene.scene]["pred"] = BoxSet.empty()
    elif what == "alignment":
        scene.meta.write_text("colorHeight = 60\n")
    elif what == "settings":
        settings = replace(SETTINGS, stride=7)
    elif what == "damage":
        file = chunk_file(shard.out / "scene0000_00.zarr", "rgb")
        content = bytearray(file.read_bytes())
        content[1000] ^= 1
        file.write_bytes(content)
    else:
        monkeypatch.setattr("threedrs.scenes.source._code_digest", lambda: "other code")
    remade = shard.build(settings)
    kept = [new == old for new, old in zip(shard.identities(), built, strict=True)]
    assert kept == [False, untouched]
    same_content = what in ("damage", "code")
    assert (remade["scenes"]["scene0000_00"] == manifest["scenes"]["scene0000_00"]) is same_content
    SceneStore.open(shard.out / "scene0000_00.zarr").verify()


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
        left_out={"scene0000_00": "of another mesh"},
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

    monkeypatch.setattr(writer, "write_array", full)
    with pytest.raises(StoreError, match="No space left on device"):
        shard.build()
    assert not shard.manifest.exists()


def test_settings_name_valid_choices() -> None:
    config = {
        "frames": {"stride": 5, "strategy": "uniform", "count": 8},
        "geometry": {"invalid_depth": "ignore", "coordinate_dtype": "float32"},
    }
    settings = SceneSettings.from_config(config)
    assert settings == SceneSettings(stride=5, count=8, invalid_depth="ignore")
    with pytest.raises(ConfigError, match="'random' is not known; choose one of uniform, coverage"):
        SceneSettings(strategy="random")
    with pytest.raises(ConfigError, match=r"frames\.stride: must be a whole number from 1, not 0"):
        SceneSettings(stride=0)
    with pytest.raises(ConfigError, match=r"frames\.count: must be a whole number from 1"):
        SceneSettings(count=True)
    with pytest.raises(ConfigError, match="choose one of reference, ignore"):
        SceneSettings(invalid_depth="none")


def test_digests_are_of_values() -> None:
    values = np.arange(12, dtype="<i4").reshape(3, 4)
    digest = zarr_io.array_digest(values)
    assert digest == zarr_io.array_digest(values.astype(">i4"))
    assert digest == zarr_io.array_digest(np.asfortranarray(values))
    assert digest != zarr_io.array_digest(values.reshape(4, 3))
    assert digest != zarr_io.array_digest(values.astype("<u4"))
    assert zarr_io.bytes_digest([b"ab", b"c"]) != zarr_io.bytes_digest([b"a", b"bc"])
