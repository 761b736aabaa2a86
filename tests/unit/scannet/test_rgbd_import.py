"""Importing posed RGB-D folders: payloads, intrinsics, depth, refusals."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fixtures.rgbd_folders import (
    INTRINSIC,
    depth_values,
    imported,
    log_text,
    make_folder,
    refused,
    rigid,
    tum_text,
)
from fixtures.rgbd_folders import folder as folder
from fixtures.sens_files import picture
from threedrs.errors import DataError
from threedrs.scannet.rgbd_frames import RgbdFrames, import_rgbd
from threedrs.scannet.sens import SensReader


@pytest.mark.parametrize("color", ["color", "rgb", "image", "images"])
@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png"])
def test_open3d_log_and_payloads_byte_for_byte(tmp_path, color, kind):
    folder = make_folder(tmp_path / "in", ["00000", "00001"], color=color, kind=kind)
    poses = [rigid(1), rigid(2)]
    (folder / "trajectory.log").write_text(log_text(poses))
    header, read, valid, frames, out = imported(folder, tmp_path)
    assert np.array_equal(read, poses)
    assert valid.all()
    assert header.color_compression == ("png" if kind == "png" else "jpeg")
    assert header.depth_shift == 1000.0
    assert (header.intrinsic_color[0, 0], header.intrinsic_color[1, 2]) == (20.0, 6.0)
    assert np.array_equal(header.intrinsic_color, header.intrinsic_depth)
    with SensReader(out) as reader:
        for index in range(2):
            source = folder / color / f"{index:05d}.{kind}"
            assert reader.color_bytes(index) == source.read_bytes()
            assert np.array_equal(frames[index].depth, depth_values(index))


def test_the_depth_scale_of_a_tum_capture_is_asked_for(tmp_path):
    folder = make_folder(tmp_path / "in", ["0", "1"])
    (folder / "groundtruth.txt").write_text(tum_text([1, 2], [rigid(0), rigid(1)]))
    message = refused(folder, tmp_path)
    assert "say which by --depth-scale 5000 or --depth-scale 1000" in message
    assert imported(folder, tmp_path, depth_scale=5000)[0].depth_shift == 5000


def test_a_tum_capture_without_depth_is_said_to_have_none(tmp_path):
    folder = make_folder(tmp_path / "in", ["0", "1"])
    (folder / "groundtruth.txt").write_text(tum_text([1, 2], [rigid(0), rigid(1)]))
    for name in "01":
        Image.fromarray(np.zeros((12, 16), dtype=np.uint16)).save(folder / "depth" / f"{name}.png")
    assert "no pixel has a depth" in refused(folder, tmp_path)


def test_doubts_about_poses_and_intrinsic_are_notes(tmp_path, caplog):
    folder = make_folder(tmp_path / "in", [f"{number:02d}" for number in range(30)])
    poses = [rigid(number) for number in range(30)]
    poses[3][0, 3] = 5000.0  # metres from the others
    (folder / "trajectory.log").write_text(log_text(poses))
    crop = "20,21,4,3"  # the middle of images of half the size
    frames = RgbdFrames(folder, intrinsic=crop)
    assert not caplog.records
    crops, far = frames.notes
    assert "is that of a crop, or of images of about 8x6" in crops
    assert "pose of 03.jpg: the pose lies over 1000 m from the others" in far
    assert frames.facts[-2:] == frames.notes
    imported(folder, tmp_path, intrinsic=crop)
    assert [record.message for record in caplog.records] == frames.notes


def test_depth_shift_and_chosen_trajectory(folder, tmp_path):
    other = tmp_path / "other.log"
    other.write_text(log_text([rigid(7)] * 3))
    header, read, _, _, _ = imported(folder, tmp_path, depth_scale=5000.0, trajectory=other)
    assert header.depth_shift == 5000.0
    assert np.array_equal(read, [rigid(7)] * 3)


@pytest.mark.parametrize("form", ["numbers", "text", "3x3", "4x4", "json"])
def test_forms_of_the_intrinsic(folder, tmp_path, form):
    fx, fy, cx, cy = INTRINSIC
    matrix = np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    (folder / "intrinsic.txt").unlink()
    given = None
    if form == "numbers":
        given = INTRINSIC
    elif form == "text":
        given = "20, 21,8.0,6"
    elif form == "json":
        camera = {"width": 16, "height": 12, "intrinsic_matrix": [fx, 0, 0, 0, fy, 0, cx, cy, 1]}
        (folder / "camera_intrinsic.json").write_text(json.dumps(camera))
    else:
        given = tmp_path / "given.txt"
        np.savetxt(given, matrix if form == "4x4" else matrix[:3, :3])
    header = imported(folder, tmp_path, intrinsic=given)[0]
    assert np.array_equal(header.intrinsic_color, matrix)
    assert np.array_equal(header.intrinsic_depth, matrix)


def test_depth_images_of_another_size(tmp_path):
    folder = make_folder(tmp_path / "in", ["0"], depth_size=(8, 6))
    (folder / "trajectory.log").write_text(log_text([rigid(0)]))
    assert "add depth_intrinsic.txt" in refused(folder, tmp_path)
    np.savetxt(folder / "depth_intrinsic.txt", [[10, 0, 4], [0, 10.5, 3], [0, 0, 1]])
    header = imported(folder, tmp_path)[0]
    assert (header.depth_width, header.depth_height) == (8, 6)
    assert (header.intrinsic_color[0, 0], header.intrinsic_depth[0, 0]) == (20.0, 10.0)


@pytest.mark.parametrize("typed", ["50,50,32,24", "50 50 32 24\n", "50, 50, 32, 24"])
def test_the_remedy_for_a_depth_intrinsic_works_as_typed(tmp_path, typed):
    folder = make_folder(tmp_path / "in", ["0"], size=(64, 48), depth_size=(64, 48))
    (folder / "trajectory.log").write_text(log_text([rigid(0)]))
    np.savetxt(folder / "intrinsic.txt", [[50, 0, 32], [0, 50, 24], [0, 0, 1]])
    np.savetxt(folder / "depth_intrinsic.txt", [[100, 0, 64], [0, 100, 48], [0, 0, 1]])
    assert refused(folder, tmp_path).endswith("write there 50,50,32,24")
    (folder / "depth_intrinsic.txt").write_text(typed)
    matrix = imported(folder, tmp_path)[0].intrinsic_depth
    assert matrix.tolist() == [[50, 0, 32, 0], [0, 50, 24, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_a_wrong_scale_is_said_before_all_images_are_read(tmp_path, monkeypatch):
    names = [f"{number:05d}" for number in range(50)]
    folder = make_folder(tmp_path / "in", names)
    (folder / "trajectory.log").write_text(log_text([rigid(number) for number in range(50)]))
    read = []
    monkeypatch.setattr(RgbdFrames, "color", lambda self, index: read.append(index))
    message = refused(folder, tmp_path, depth_scale=10)
    assert "which no room has; give --depth-scale 1000" in message
    assert read == []


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: remove(f / "depth" / "00001.png"), "color/00001.jpg has no partner in depth"),
        (lambda f: remove(f / "color" / "00002.jpg"), "depth/00002.png has no partner in color"),
        (
            lambda f: (f / "depth/00001.png").rename(f / "depth/00007.png"),
            "color/00001.jpg has no partner in depth",
        ),
        (lambda f: (f / "depth").rename(f / "deep"), "no depth images (looked for depth)"),
        (lambda f: (f / "color").rename(f / "rbg"), "color, rgb, image, images"),
        (lambda f: (f / "rgb").mkdir(), "both color and rgb"),
        (lambda f: remove(f / "trajectory.log"), "trajectory.log, groundtruth.txt, pose, poses"),
        (lambda f: (f / "pose").mkdir(), "choose with --trajectory"),
        (lambda f: remove(f / "intrinsic.txt"), "give --intrinsic fx,fy,cx,cy"),
        (lambda f: (f / "color/00003.png").write_bytes(picture(0, kind="PNG")), "mixes JPEG"),
        (
            lambda f: (f / "color/00001.jpg").write_bytes(picture(0, (8, 8))),
            "8x8 pixels, the first colour image 16x12",
        ),
        (
            lambda f: (f / "color/00001.jpg").write_bytes(b"junk"),
            "color/00001.jpg: is not a readable image",
        ),
        (lambda f: (f / "color/00001.jpg").write_bytes(picture(1)[:-9]), "00001.jpg: jpeg colour"),
        (lambda f: (f / "color/00000.jpg").write_bytes(b""), "00000.jpg: is not a readable image"),
        (lambda f: (f / "depth/00001.png").write_bytes(b"junk"), "00001.png: is not a readable"),
        (
            lambda f: Image.fromarray(depth_values(0, (8, 8))).save(f / "depth/00001.png"),
            "8x8 pixels, the first depth image 16x12",
        ),
        (
            lambda f: Image.fromarray(depth_values(0).astype(np.uint8)).save(f / "depth/00001.png"),
            "not a 16-bit grey PNG",
        ),
    ],
)
def test_damaged_folders(folder, tmp_path, damage, message):
    damage(folder)
    assert message in refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("intrinsic", "message"),
    [
        ("525,525", "holds 2 numbers"),
        ("a,b,c,d", "could not convert"),
        ((0.0, 525.0, 8.0, 6.0), "must be positive"),
        (
            "40,42,16,12",
            "images of about 32x24 pixels, these have 16x12; give --intrinsic 20,21,8,6",
        ),
        ("525,525,nan,6", "finite"),
        ("missing.txt", "missing.txt: cannot be read"),
        ("missing.json", "missing.json: cannot be read"),
    ],
)
def test_bad_intrinsics(folder, tmp_path, intrinsic, message):
    assert message in refused(folder, tmp_path, intrinsic=intrinsic)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("i.txt", "1 2 3", "3x3 or 4x4"),
        ("i.txt", "20 0 0 0 21 0 8 6 1", "not a pinhole intrinsic"),
        ("i.json", "[]", "write it as an Open3D camera intrinsic"),
        (
            "i.json",
            '{"width": 640, "height": 480, "intrinsic_matrix": [20,0,0,0,21,0,8,6,1]}',
            "640x480 pixels, the images have 16x12; if they were resized, give --intrinsic 0.5,",
        ),
    ],
)
def test_bad_intrinsic_files(folder, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    assert message in refused(folder, tmp_path, intrinsic=tmp_path / name)


def test_an_intrinsic_file_may_write_its_size_as_640_0(folder, tmp_path):
    stated = {"width": 16.0, "height": 12.0, "intrinsic_matrix": [20, 0, 0, 0, 21, 0, 8, 6, 1]}
    (tmp_path / "i.json").write_text(json.dumps(stated))
    assert imported(folder, tmp_path, intrinsic=tmp_path / "i.json")[0].intrinsic_color[1, 1] == 21


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (
            5,
            "median depth is 12.* m at 1000 units a metre, .*--depth-scale 4000 .* or 5000 .TUM: 2",
        ),
        (0.03, "the median depth is 0.07. m at 1000 units a metre, which no room has"),
        (0, "no pixel has a depth"),
    ],
)
def test_depth_that_no_room_has(folder, tmp_path, factor, message):
    for index in range(3):
        depth = (depth_values(index).astype(float) * factor).astype(np.uint16)
        Image.fromarray(depth).save(folder / "depth" / f"{index:05d}.png")
    assert re.search(message, refused(folder, tmp_path))


def test_depth_65535_is_no_measurement(folder, tmp_path):
    depth = depth_values(0)
    depth[0] = 65535
    Image.fromarray(depth).save(folder / "depth" / "00000.png")
    frame = imported(folder, tmp_path)[3][0]
    assert (frame.depth[0] == 0).all()
    assert np.array_equal(frame.depth[1:], depth[1:])


def test_missing_folder_and_target_in_use(folder, tmp_path):
    assert "is not a folder" in refused(tmp_path / "none", tmp_path)
    with pytest.raises(DataError, match=r"name the \.sens file"):
        import_rgbd(folder, tmp_path)
    (tmp_path / "poses.txt").write_text("mine")
    with pytest.raises(DataError, match=r"poses\.txt: is not the name of a scan"):
        import_rgbd(folder, tmp_path / "poses.txt")
    assert (tmp_path / "poses.txt").read_text() == "mine"
    with pytest.raises(DataError, match="--depth-scale 0"):
        import_rgbd(folder, tmp_path / "out.sens", depth_scale=0)


def test_a_scan_may_have_its_suffix_in_capitals(folder, tmp_path):
    count = import_rgbd(folder, tmp_path / "LAB.SENS")
    with SensReader(tmp_path / "LAB.SENS") as reader:
        assert len(reader) == count == 3
