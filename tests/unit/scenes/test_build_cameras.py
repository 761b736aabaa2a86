"""The same checks of poses, intrinsics and depth at each way into a scene store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.scan_files import BOXES, INTRINSIC, SETTINGS, TURN, build_scene, make_scan
from threedrs.errors import DataError
from threedrs.scannet.embodiedscan import SceneInfos
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.posed_images import export_posed_images
from threedrs.scannet.sens import SensReader, SensWriter
from threedrs.scenes.build import build_shard
from threedrs.scenes.published_lists import PublishedLists
from threedrs.scenes.store import SceneStore

LARGER = np.diag([2.0, 2.0, 1, 1]) @ INTRINSIC  # of images of 126x94 pixels
Change = Callable[[np.ndarray], np.ndarray]


def same(values: np.ndarray) -> np.ndarray:
    return values


def changed_sens(
    folder: Path,
    *,
    pose: Change = same,
    depth: Change = same,
    depth_intrinsic: Change = same,
    color_intrinsic: Change = same,
) -> ScanFiles:
    """A .sens of frames 0 to 29 with other poses, depth or intrinsics."""
    scan = make_scan(folder, invalid=())
    with SensReader(scan.sens) as reader:
        header = replace(
            reader.header,
            intrinsic_depth=depth_intrinsic(reader.header.intrinsic_depth),
            intrinsic_color=color_intrinsic(reader.header.intrinsic_color),
        )
        with SensWriter.create(scan.sens, header) as writer:
            for index in range(30):
                writer.add(
                    pose(reader.poses[index]), reader.color_bytes(index), depth(reader.depth(index))
                )
    return scan


def changed_images(folder: Path, **changes: Change) -> ScanFiles:
    """The same as a folder of exported images, with depth as it stands in the .sens."""
    scan = changed_sens(folder, **changes)
    export_posed_images(scan.sens, scan.posed_images, stride=10)
    with SensReader(scan.sens) as reader:
        for frame in range(0, 30, 10):
            Image.fromarray(reader.depth(frame)).save(scan.posed_images / f"{frame:05d}.png")
    return replace(scan, source="posed_images")


ENTRANCES = pytest.mark.parametrize("make", [changed_sens, changed_images])


def build(scan: ScanFiles, lists: PublishedLists | None = None) -> SceneStore:
    return build_scene(scan, BOXES, SETTINGS, scan.sens.with_suffix(".zarr"), "train", lists)


@ENTRANCES
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose": np.transpose}, "frame 0: .*it is transposed, so write its columns as rows"),
        ({"pose": lambda pose: pose @ np.diag([2, 2, 2, 1])}, "rotation is scaled by 2"),
        ({"depth_intrinsic": lambda _: LARGER}, "of about 126x94 pixels, these have 64x48; scal"),
        ({"depth_intrinsic": lambda _: np.eye(4)}, "is the intrinsic|principal point|field of"),
        ({"depth": lambda depth: depth * 10}, r"the median depth is 20 m .*10000 \("),
        ({"depth": lambda depth: depth // 40}, "median depth is 0.049 m .*100 .centimetres"),
        ({"depth": lambda depth: np.full_like(depth, 65535)}, "no pixel has a depth"),
    ],
)
def test_what_no_camera_in_a_room_gives_is_refused(
    tmp_path: Path, make: Callable[..., ScanFiles], changes: dict[str, Change], message: str
) -> None:
    scan = make(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        build(scan)
    assert str(scan.frames) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not scan.sens.with_suffix(".zarr").exists()


@ENTRANCES
def test_65535_is_no_measurement(tmp_path: Path, make: Callable[..., ScanFiles]) -> None:
    def with_holes(depth: np.ndarray) -> np.ndarray:
        return np.where(np.arange(depth.shape[1]) < 16, np.uint16(65535), depth)

    depth = build(make(tmp_path, depth=with_holes)).depth()
    assert (depth[:, :, :96] == 0).all()  # 16 of 64 columns are 96 of 384
    assert depth[:, 100:, 96:].min() >= 1500


@ENTRANCES
def test_an_intrinsic_that_is_not_used_and_unusual_depth_are_noted(
    tmp_path: Path, make: Callable[..., ScanFiles]
) -> None:
    scan = make(tmp_path, color_intrinsic=lambda matrix: matrix / 2, depth=lambda d: d * 4)
    manifest = tmp_path / "train-000.json"
    for _ in range(2):  # built, and kept
        build_shard([scan], {scan.scene: BOXES}, SETTINGS, tmp_path / "scenes", manifest, "train")
        notes = SceneStore.open(tmp_path / "scenes" / f"{scan.scene}.zarr").attributes["notes"]
        assert len(notes) == 2
        assert notes[0].startswith("the colour intrinsic (not used): is the intrinsic of images")
        assert notes[1].startswith("the median depth is 7.")
        assert all(note in manifest.read_text() for note in notes)


def test_embodiedscans_intrinsic_is_held_against_the_images(tmp_path: Path) -> None:
    infos = SceneInfos(
        frames=[0, 10, 20], axis_alignment=TURN.tolist(), depth_intrinsic=LARGER.tolist()
    )
    scan = changed_images(tmp_path)
    with pytest.raises(DataError, match=r"EmbodiedScan's depth_cam2img: .*these have 64x48"):
        build(scan, PublishedLists(infos=infos))
    listed = replace(infos, depth_intrinsic=INTRINSIC.tolist())
    assert build(scan, PublishedLists(infos=listed)).frame_ids == [0, 10, 20]
