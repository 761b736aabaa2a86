"""Building one scene's store: its values against the scan, what is read, settings and bad scans."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.scan_files import (
    BOXES,
    DEPTH,
    FRAMES,
    INTRINSIC,
    SETTINGS,
    TURN,
    build_scene,
    make_scan,
    record_reads,
)
from fixtures.sens_files import frame_of
from threedrs.errors import ConfigError, DataError
from threedrs.scannet.boxes import make_box_set
from threedrs.scannet.geometry import frame_masks
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.sens import SensReader
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.store import SceneStore


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> ScanFiles:
    return make_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def built(scan: ScanFiles, tmp_path_factory: pytest.TempPathFactory) -> SceneStore:
    out = tmp_path_factory.mktemp("scenes") / "scene0000_00.zarr"
    return build_scene(scan, BOXES, SETTINGS, out, "train")


def test_values_against_a_slow_reading_of_the_scan(scan: ScanFiles, built: SceneStore) -> None:
    assert built.frame_ids == [0, 20, 40]
    assert (built.scene, built.split, built.depth_size) == ("scene0000_00", "train", DEPTH)
    np.testing.assert_array_equal(built.depth_intrinsic(), INTRINSIC)
    coordinates, patch_xyz = built.coordinates(), built.patch_xyz()
    with SensReader(scan.sens) as reader:
        payloads = b""
        for row, frame_id in enumerate(built.frame_ids):
            frame = frame_of(reader, frame_id)
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
        scan, BOXES, SETTINGS.replace(invalid_depth="ignore"), tmp_path / "ignore.zarr", "train"
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
    boxes = {"gt": around_camera, "pred": make_box_set()}
    for settings, sees in ((SETTINGS, True), (SETTINGS.replace(invalid_depth="ignore"), False)):
        store = build_scene(scan, boxes, settings, tmp_path / "camera.zarr", "train")
        assert bool(store.masks("gt")[0].any()) is sees
    assert ignoring.content_hash() != built.content_hash()


def test_only_chosen_payloads_are_read(
    scan: ScanFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = record_reads(monkeypatch)
    build_scene(scan, BOXES, SETTINGS, tmp_path / "x.zarr", "train")
    payloads = {start for start, stop in reads if stop - start > 500}
    assert len(payloads) == 2 * SETTINGS.count


def test_no_valid_pose_is_an_error_and_few_frames_a_note(tmp_path: Path) -> None:
    lost = make_scan(tmp_path, invalid=tuple(range(FRAMES)))
    with pytest.raises(DataError, match=r"scene0000_00 has no candidate frame.*data\.splits names"):
        build_scene(lost, BOXES, SETTINGS, tmp_path / "x.zarr", "train")
    short = make_scan(tmp_path, "scene0001_00", frames=11, invalid=())
    store = build_scene(short, BOXES, SETTINGS.replace(count=5), tmp_path / "short.zarr", "train")
    assert store.frame_ids == [0, 0, 0, 0, 10]
    assert store.attributes["notes"] == ["only 2 candidate frames for 5: frames are repeated"]
    for array in (store.rgb(), store.depth(), store.patch_xyz(), store.masks("gt")[0][0]):
        np.testing.assert_array_equal(array[0], array[3])
    assert store.jpegs()[0] == store.jpegs()[3] != store.jpegs()[4]


def test_raw_colour_and_another_depth_unit(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, color="raw", depth_shift=5000.0, invalid=())
    store = build_scene(scan, BOXES, SETTINGS.replace(count=1), tmp_path / "x.zarr", "val")
    with SensReader(scan.sens) as reader:
        frame = frame_of(reader, 0)
    with Image.open(io.BytesIO(store.jpegs()[0])) as image:
        np.testing.assert_array_equal(np.asarray(image), frame.color)
    assert store.depth()[0, -1, 0] == round(int(frame.depth[-1, 0]) / 5)


def test_focal_length_must_be_positive(scan: ScanFiles, tmp_path: Path) -> None:
    broken = tmp_path / "broken.sens"
    with SensReader(scan.sens) as reader:
        start = reader.header_bytes.index(INTRINSIC.astype("<f4").tobytes())
    content = bytearray(scan.sens.read_bytes())
    content[start : start + 4] = bytes(4)
    broken.write_bytes(content)
    with pytest.raises(DataError, match="focal lengths must be positive"):
        build_scene(replace(scan, sens=broken), BOXES, SETTINGS, tmp_path / "x.zarr", "train")


def test_settings_name_valid_choices() -> None:
    config = {
        "frames": {"stride": 5, "strategy": "uniform", "count": 8},
        "geometry": {"invalid_depth": "ignore", "coordinate_dtype": "float32"},
    }
    settings = SceneSettings.from_config(config)
    assert settings == SceneSettings(stride=5, count=8, invalid_depth="ignore")
    with pytest.raises(ConfigError, match="'random'; choose one of: uniform, coverage"):
        SceneSettings(strategy="random")
    with pytest.raises(ConfigError, match=r"frames\.stride: 0 is less than the minimum of 1"):
        SceneSettings(stride=0)
    with pytest.raises(ConfigError, match=r"frames\.count: True is not of type 'integer'"):
        SceneSettings(count=True)
    with pytest.raises(ConfigError, match="choose one of: reference, ignore"):
        SceneSettings(invalid_depth="none")
