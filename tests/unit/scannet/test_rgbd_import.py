"""Importing posed RGB-D folders: trajectory forms, association, intrinsics, refusals."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from fixtures.sens_files import picture
from threedrs.errors import DataError
from threedrs.scannet.rgbd_folder import MAX_TIME_DIFFERENCE, read_rgbd_folder, read_trajectory
from threedrs.scannet.rgbd_import import import_rgbd
from threedrs.scannet.sens import SensReader

SIZE = (16, 12)
INTRINSIC = (20.0, 21.0, 8.0, 6.0)


def rigid(seed: int) -> np.ndarray:
    """A camera-to-world pose, rounded to f32 as a .sens stores it."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(rng=rng).as_matrix()
    matrix[:3, 3] = rng.uniform(-3, 3, 3)
    return matrix.astype(np.float32).astype(np.float64)


def depth_values(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, size[::-1]).astype(np.uint16)


def make_folder(
    folder,
    names,
    *,
    color="color",
    kind="jpg",
    size=SIZE,
    depth_size=SIZE,
    depth_names=None,
    intrinsic=True,
):
    (folder / color).mkdir(parents=True)
    (folder / "depth").mkdir()
    for seed, name in enumerate(names):
        data = picture(seed, size, "PNG" if kind == "png" else "JPEG")
        (folder / color / f"{name}.{kind}").write_bytes(data)
    for seed, name in enumerate(names if depth_names is None else depth_names):
        Image.fromarray(depth_values(seed, depth_size)).save(folder / "depth" / f"{name}.png")
    if intrinsic:
        fx, fy, cx, cy = INTRINSIC
        np.savetxt(folder / "intrinsic.txt", [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return folder


def log_text(poses) -> str:
    lines = []
    for index, matrix in enumerate(poses):
        lines.append(f"{index} {index} {index + 1}")
        lines += [" ".join(f"{value:.9g}" for value in row) for row in matrix]
    return "\n".join(lines) + "\n"


def tum_text(times, poses) -> str:
    lines = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for time, matrix in zip(times, poses, strict=True):
        values = [*matrix[:3, 3], *Rotation.from_matrix(matrix[:3, :3]).as_quat()]
        lines.append(" ".join([f"{time:.4f}", *(f"{value:.9f}" for value in values)]))
    return "\n".join(lines) + "\n"


def imported(folder, tmp_path, **options):
    out = tmp_path / "out.sens"
    count = import_rgbd(folder, out, **options)
    with SensReader(out) as reader:
        assert len(reader) == count
        return reader.header, reader.poses, reader.valid, list(reader), out


def refused(folder, tmp_path, **options) -> str:
    with pytest.raises(DataError) as caught:
        import_rgbd(folder, tmp_path / "out.sens", **options)
    assert not (tmp_path / "out.sens").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """Three frames named 00000 to 00002 with an Open3D log."""
    path = make_folder(tmp_path / "in", ["00000", "00001", "00002"])
    (path / "trajectory.log").write_text(log_text([rigid(index) for index in range(3)]))
    return path


# What a good folder gives


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


def test_one_text_per_frame_with_a_lost_one(tmp_path):
    names = ["2", "10", "0"]  # natural, not alphabetical order: 0, 2, 10
    folder = make_folder(tmp_path / "in", names)
    (folder / "pose").mkdir()
    poses = {"0": rigid(0), "2": np.full((4, 4), -np.inf), "10": rigid(10)}
    for name, matrix in poses.items():
        np.savetxt(folder / "pose" / f"{name}.txt", matrix)
    _, read, valid, frames, _ = imported(folder, tmp_path)
    assert np.array_equal(read, [poses["0"], poses["2"], poses["10"]])
    assert valid.tolist() == [True, False, True]
    assert np.array_equal(frames[0].depth, depth_values(2))  # third name written, first in order


def test_tum_names_are_timestamps(tmp_path):
    # Colour at 100 to 103 s; depth 8 ms later, none near 102; poses 4 ms later, none near 103.
    folder = make_folder(
        tmp_path / "in",
        ["100.000000", "101.000000", "102.000000", "103.000000"],
        color="rgb",
        kind="png",
        depth_names=["100.008000", "101.008000", "102.500000", "103.008000"],
    )
    times = [99.9, 100.004, 100.1, 101.004, 102.004, 103.5]
    poses = [rigid(index) for index in range(6)]
    (folder / "groundtruth.txt").write_text(tum_text(times, poses))
    _, read, valid, frames, out = imported(folder, tmp_path)
    assert len(frames) == 3  # the colour image at 102 s has no depth image
    assert np.allclose(read[0], poses[1], atol=1e-6)
    assert np.allclose(read[1], poses[3], atol=1e-6)
    assert np.array_equal(read[2], np.full((4, 4), -np.inf))
    assert valid.tolist() == [True, True, False]
    assert np.array_equal(frames[2].depth, depth_values(3))
    with SensReader(out) as reader:
        assert reader.color_timestamps.tolist() == [100_000_000, 101_000_000, 103_000_000]
        assert reader.depth_timestamps.tolist() == [100_008_000, 101_008_000, 103_008_000]


def test_tum_by_order_where_names_are_numbers(tmp_path):
    folder = make_folder(tmp_path / "in", ["0", "1", "2"], color="rgb")
    poses = [rigid(index) for index in range(3)]
    (folder / "groundtruth.txt").write_text(tum_text([1, 2, 3], poses))
    assert np.allclose(imported(folder, tmp_path)[1], poses, atol=1e-6)


def test_tum_quaternion_by_hand(tmp_path):
    # A quarter turn about z takes x to y; a quaternion of any length says the same.
    path = tmp_path / "groundtruth.txt"
    path.write_text("1.5 1 2 3 0 0 2 2\n")
    track = read_trajectory(path)
    expected = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    assert np.allclose(track.poses, [expected])
    assert track.timestamps.tolist() == [1.5]


def test_pairing_by_time_agrees_with_a_plain_search(tmp_path):
    rng = np.random.default_rng(0)
    color_times = np.unique(np.round(rng.uniform(10, 11, 30), 4))
    depth_times = np.unique(np.round(rng.uniform(10, 11, 25), 4))
    pose_times = np.round(rng.uniform(10, 11, 20), 4)  # unsorted, as nothing promises order
    poses = np.stack([rigid(index) for index in range(20)])
    folder = make_folder(
        tmp_path / "in",
        [f"{time:.4f}" for time in color_times],
        depth_names=[f"{time:.4f}" for time in depth_times],
    )
    (folder / "groundtruth.txt").write_text(tum_text(pose_times, poses))
    expected = []
    for time in color_times:
        depth = min(depth_times, key=lambda other: (abs(other - time), other))
        back = min(color_times, key=lambda other: (abs(other - depth), other))
        if back == time and abs(depth - time) <= MAX_TIME_DIFFERENCE:
            near = int(np.argmin(np.abs(pose_times - time)))
            close = abs(pose_times[near] - time) <= MAX_TIME_DIFFERENCE
            expected.append((f"{time:.4f}", f"{depth:.4f}", near if close else None))
    frames = read_rgbd_folder(folder, None)
    assert [(frame.color.stem, frame.depth.stem) for frame in frames] == [
        (color, depth) for color, depth, _ in expected
    ]
    assert {near is None for _, _, near in expected} == {True, False}
    for frame, (_, _, near) in zip(frames, expected, strict=True):
        wanted = np.full((4, 4), -np.inf) if near is None else poses[near]
        assert np.allclose(frame.pose, wanted, atol=1e-6)


def test_other_naming_on_each_side_pairs_by_order(tmp_path):
    folder = make_folder(
        tmp_path / "in",
        ["frame-000000.color", "frame-000001.color"],
        depth_names=["frame-000000.depth", "frame-000001.depth"],
    )
    (folder / "poses").mkdir()
    for index in range(2):
        np.savetxt(folder / "poses" / f"frame-{index:06d}.pose.txt", rigid(index))
    _, read, _, frames, _ = imported(folder, tmp_path)
    assert np.allclose(read, [rigid(0), rigid(1)])
    assert np.array_equal(frames[1].depth, depth_values(1))


def test_depth_shift_and_chosen_trajectory(folder, tmp_path):
    other = tmp_path / "other.log"
    other.write_text(log_text([rigid(7)] * 3))
    header, read, _, _, _ = imported(folder, tmp_path, depth_shift=5000.0, trajectory=other)
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


# What is refused


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
        (lambda f: (f / "color/00001.jpg").write_bytes(picture(0, (8, 8))), "8x8 pixels, not"),
        (lambda f: (f / "color/00001.jpg").write_bytes(b"junk"), "color/00001.jpg: colour payload"),
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
    ("text", "message"),
    [
        ("", "holds no pose"),
        (log_text([rigid(0)] * 2), "holds 2 poses"),
        (log_text([rigid(0)] * 3) + "3 3 4\n", "no whole number of frames"),
        (log_text([rigid(0)] * 3).replace("1 1 2", "1 1"), "line 6 does not hold"),
        (log_text([rigid(0)] * 3).replace("0 0 0 1", "0 0 0", 1), "line 5 holds 3 numbers"),
        (log_text([rigid(0)] * 3).replace("0 0 0 1", "0 0 0 one", 1), "line 5: could not convert"),
        (log_text([rigid(0), rigid(1).T, rigid(2)]), "line 6: the matrix is not a rigid"),
        (log_text([rigid(0), 2 * rigid(1), rigid(2)]), "not a rigid"),
        (log_text([np.diag([1.0, 1, -1, 1])] * 3), "not a rigid"),
    ],
)
def test_bad_logs(folder, tmp_path, text, message):
    (folder / "trajectory.log").write_text(text)
    assert message in refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "holds no pose"),
        ("1 0 0 0 0 0 1\n", "line 1 is not of the form"),
        ("# x\n1 0 0 nan 0 0 0 1\n", "line 2 is not of the form"),
        ("1 0 0 0 0 0 0 0\n", "quaternion of length 0"),
    ],
)
def test_bad_tum_files(folder, tmp_path, text, message):
    path = tmp_path / "groundtruth.txt"
    path.write_text(text)
    assert message in refused(folder, tmp_path, trajectory=path)


def test_times_that_do_not_meet(tmp_path):
    for depth_name, pose_time, message in (
        ("10.05", 10.0, "no depth image within 0.02 s of a colour image"),
        ("10.01", 20.0, "no pose within 0.02 s of a colour image"),
    ):
        folder = make_folder(tmp_path / depth_name, ["10.00"], depth_names=[depth_name])
        (folder / "groundtruth.txt").write_text(tum_text([pose_time], [rigid(0)]))
        assert message in refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("intrinsic", "message"),
    [
        ("525,525", "holds 2 numbers"),
        ("a,b,c,d", "could not convert"),
        ((0.0, 525.0, 8.0, 6.0), "must be positive"),
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
        ("i.json", "[]", "not an Open3D camera intrinsic"),
        (
            "i.json",
            '{"width": 640, "height": 480, "intrinsic_matrix": [20,0,0,0,21,0,8,6,1]}',
            "640x480 pixels, the images have 16x12",
        ),
    ],
)
def test_bad_intrinsic_files(folder, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    assert message in refused(folder, tmp_path, intrinsic=tmp_path / name)


def test_missing_folder_and_target_in_use(folder, tmp_path):
    assert "is not a folder" in refused(tmp_path / "none", tmp_path)
    with pytest.raises(DataError, match="is a folder; name the"):
        import_rgbd(folder, tmp_path)
    with pytest.raises(DataError, match="depth_shift"):
        import_rgbd(folder, tmp_path / "out.sens", depth_shift=0)
