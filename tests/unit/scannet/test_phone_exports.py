"""The frames of ScanNet++'s iPhone captures and of ARKitScenes, and what is wrong with some."""

import json

import numpy as np
import pytest

from fixtures.captures import room_capture, write_arkitscenes, write_scannetpp
from threedrs.errors import DataError
from threedrs.scannet.phone_exports import read_arkitscenes, read_scannetpp

ROOM = room_capture(3)


@pytest.fixture
def iphone(tmp_path):
    return write_scannetpp(ROOM, tmp_path) / "iphone"


@pytest.fixture
def arkit(tmp_path):
    return write_arkitscenes(ROOM, tmp_path)


def edit(folder, change):
    path = folder / "pose_intrinsic_imu.json"
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


def test_scannetpp_takes_the_aligned_pose_and_the_frames_that_have_all_three(iphone):
    (iphone / "depth" / "frame_000001.png").unlink()

    def change(entries):
        del entries["frame_000002"]["aligned_pose"]
        entries["frame_000009"] = entries["frame_000000"]

    edit(iphone, change)
    found = read_scannetpp(iphone)
    assert [file.name for file in found.color_files] == ["frame_000000.jpg", "frame_000002.jpg"]
    assert [file.name for file in found.depth_files] == ["frame_000000.png", "frame_000002.png"]
    assert np.array_equal(found.poses[0], ROOM.poses[0])
    assert not np.isfinite(found.poses[1]).any()  # the session's own pose is not taken
    # The colour images are twice as large: 2 x 130 and 2 x (80, 60).
    assert found.intrinsic == (260.0, 260.0, 160.0, 120.0)
    assert (found.registered, found.units_per_metre, found.up) == (True, (1000.0,), None)
    assert found.notes[-1] == "1 of 3 images lack colour, depth or a pose: left out"


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_frame_of_scannetpp_that_was_not_localised_has_no_finite_pose(iphone, value):
    edit(iphone, lambda e: e["frame_000001"].update(aligned_pose=np.full((4, 4), value).tolist()))
    found = read_scannetpp(iphone)
    assert np.isfinite(found.poses).all(axis=(1, 2)).tolist() == [True, False, True]


def test_entries_of_scannetpp_without_an_extracted_image_are_not_looked_at(iphone):
    edit(iphone, lambda e: e.update(frame_000007={"aligned_pose": "lost"}, info="60 Hz"))
    assert len(read_scannetpp(iphone).color_files) == 3


def test_focal_lengths_that_differ_are_said_and_after_a_zoom_refused(iphone):
    def focus(entries, factor):
        entries["frame_000000"]["intrinsic"][0][0] = 260 * factor

    edit(iphone, lambda entries: focus(entries, 1.02))
    assert read_scannetpp(iphone).notes[0].endswith("of 3 frames', which differ by 2.0%")
    edit(iphone, lambda entries: focus(entries, 1.5))
    with pytest.raises(DataError, match="focal lengths differ by 50%"):
        read_scannetpp(iphone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: e["frame_000001"].update(aligned_pose=[1, 2]),
            "000001.aligned_pose.0: 1 is not of",
        ),
        (
            lambda e: e["frame_000001"].update(intrinsic=[10**400] * 9),
            "000001.intrinsic: .*at most 3",
        ),
        (
            lambda e: e["frame_000001"].update(intrinsic="x"),
            "000001.intrinsic: 'x' is not of",
        ),
        (
            lambda e: e["frame_000001"].pop("intrinsic"),
            "000001: 'intrinsic' is a required",
        ),
        (lambda e: e.update(frame_000001=[]), "frame_000001: .* is not of type 'object'"),
        (lambda e: e.clear(), "no image has a depth image and a pose"),
        (
            lambda e: e["frame_000001"].update(aligned_pose=(2 * np.eye(4)).tolist()),
            "frame_000001: the matrix is not a rigid",
        ),
    ],
)
def test_a_bad_entry_of_scannetpp_is_named(iphone, change, message):
    edit(iphone, change)
    with pytest.raises(DataError, match=message):
        read_scannetpp(iphone)


def test_scannetpp_before_its_images_are_extracted(iphone):
    for image in (iphone / "rgb").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="prepare_iphone_data"):
        read_scannetpp(iphone)
    edit(iphone.parent / "iphone", lambda entries: None)
    (iphone / "pose_intrinsic_imu.json").write_text("[]")
    with pytest.raises(DataError, match=r"prepare_iphone_data|JSON object"):
        read_scannetpp(iphone)


def test_arkitscenes_takes_poses_of_the_same_time_as_inverses(arkit):
    # One image more, 50 ms after the last pose; and one pose whose time is of no image.
    for kind in ("wide", "depth"):
        image = next((arkit / f"lowres_{kind}").iterdir())
        image.with_name("41048190_3298.750.png").write_bytes(image.read_bytes())
    with (arkit / "lowres_wide.traj").open("a") as stream:
        # A quarter about z, then 1 m along x: the camera stands where R^T t is taken back.
        stream.write(f"3298.750 0 0 {np.pi / 2} 1 0 0\n3400 0 0 0 0 0 0\n")
    found = read_arkitscenes(arkit)
    assert len(found.poses) == 4
    assert np.allclose(found.poses[:3], ROOM.poses, atol=1e-6)
    # World to camera: p = R w + t with R x = y, R y = -x and t = (1, 0, 0), so the camera's
    # centre is -R^T t = (0, 1, 0), and its x axis is R^T x = -y.
    expected = [[0, 1, 0, 0], [-1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert np.allclose(found.poses[3], expected, atol=1e-9)
    assert (found.up, found.registered, found.intrinsic) == ("z", True, ROOM.intrinsic)


def test_images_of_arkitscenes_between_poses_are_left_out(arkit):
    lines = (arkit / "lowres_wide.traj").read_text().splitlines()
    (arkit / "lowres_wide.traj").write_text("\n".join(lines[:2]))
    found = read_arkitscenes(arkit)
    assert len(found.poses) == 2
    assert found.notes[-1] == "1 of 3 images lack colour, depth or a pose: left out"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "lowres_wide.traj").write_text(""), "a pose in lowres_wide.traj"),
        (lambda f: (f / "lowres_wide.traj").write_text("1 2 3"), "line 1 is not of the form 'time"),
        (lambda f: (f / "lowres_wide.traj").write_text("9 0 0 0 0 0 0"), "no image has a depth"),
        (
            lambda f: next((f / "lowres_wide_intrinsics").iterdir()).write_text("160 120 130"),
            "is not of the form 'width height fx fy cx cy'",
        ),
        (
            lambda f: (f / "lowres_wide" / "41048190_end.png").write_bytes(b""),
            "41048190_end.png: its name does not end in a time",
        ),
    ],
)
def test_bad_files_of_arkitscenes_are_named(arkit, damage, message):
    damage(arkit)
    with pytest.raises(DataError, match=message):
        read_arkitscenes(arkit)
