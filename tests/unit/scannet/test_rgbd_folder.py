"""Which images, depth images and poses of an RGB-D folder belong together."""

import numpy as np
import pytest

from fixtures.rgbd_folders import (
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
from threedrs.scannet.rgbd_folder import MAX_TIME_DIFFERENCE, read_rgbd_folder
from threedrs.scannet.sens import SensReader
from threedrs.scannet.trajectory import read_trajectory


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
    _, read, valid, frames, out = imported(folder, tmp_path, depth_scale=1000)
    with SensReader(out) as reader:
        assert reader.color_timestamps.tolist() == [100_000_000, 101_000_000, 103_000_000]
        assert reader.depth_timestamps.tolist() == [100_008_000, 101_008_000, 103_008_000]
    assert len(frames) == 3  # the colour image at 102 s has no depth image
    assert np.allclose(read[0], poses[1], atol=1e-6)
    assert np.allclose(read[1], poses[3], atol=1e-6)
    assert np.array_equal(read[2], np.full((4, 4), -np.inf))
    assert valid.tolist() == [True, True, False]
    assert np.array_equal(frames[2].depth, depth_values(3))


def test_tum_by_order_where_names_are_numbers(tmp_path):
    folder = make_folder(tmp_path / "in", ["0", "1", "2"], color="rgb")
    poses = [rigid(index) for index in range(3)]
    (folder / "groundtruth.txt").write_text(tum_text([1, 2, 3], poses))
    assert np.allclose(imported(folder, tmp_path, depth_scale=1000)[1], poses, atol=1e-6)


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
    found = read_rgbd_folder(folder, None)
    assert [file.stem for file in found.color_files] == [color for color, _, _ in expected]
    assert [file.stem for file in found.depth_files] == [depth for _, depth, _ in expected]
    assert {near is None for _, _, near in expected} == {True, False}
    for pose, (_, _, near) in zip(found.poses, expected, strict=True):
        wanted = np.full((4, 4), -np.inf) if near is None else poses[near]
        assert np.allclose(pose, wanted, atol=1e-6)


def seven_scenes(folder, *, colors=(0, 1, 2), depths=(0, 1, 2), poses=(0, 1, 2)):
    """A capture with the names of 7-Scenes; the pose of frame N is rigid(N)."""
    color_names = [f"frame-{number:06d}.color" for number in colors]
    make_folder(folder, color_names, depth_names=[f"frame-{number:06d}.depth" for number in depths])
    (folder / "poses").mkdir()
    for number in poses:
        np.savetxt(folder / "poses" / f"frame-{number:06d}.pose.txt", rigid(number))
    return folder


def test_names_with_words_pair_by_their_number(tmp_path):
    folder = seven_scenes(tmp_path / "in", colors=(7, 10, 9), depths=(9, 7, 10), poses=(10, 9, 7))
    _, read, _, frames, _ = imported(folder, tmp_path)
    assert np.allclose(read, [rigid(7), rigid(9), rigid(10)])
    # Depth images were written in the order 9, 7, 10 from the seeds 0, 1, 2.
    for frame, seed in zip(frames, (1, 0, 2), strict=True):
        assert np.array_equal(frame.depth, depth_values(seed))


@pytest.mark.parametrize(
    ("color_names", "depth_names"),
    [
        (  # SUN3D: frame and time of each camera
            ["0000001-000000000000", "0000002-000000033369", "0000003-000000066737"],
            ["0000003-000000087265", "0000001-000000020534", "0000002-000000053900"],
        ),
        (["00001_33", "00002_20", "00003_25"], ["00003", "00001", "00002"]),  # with the exposure
    ],
)
def test_the_first_number_pairs_where_later_ones_differ(tmp_path, color_names, depth_names):
    folder = make_folder(tmp_path / "in", color_names, color="image", depth_names=depth_names)
    log = folder / "trajectory.log"
    log.write_text(log_text([rigid(3), rigid(1), rigid(2)]).replace("0 0 1\n", "3 3 4\n", 1))
    _, read, _, frames, _ = imported(folder, tmp_path)
    # Depth images were written in the order 3, 1, 2 from the seeds 0, 1, 2.
    for frame, seed in zip(frames, (1, 2, 0), strict=True):
        assert np.array_equal(frame.depth, depth_values(seed))
    assert np.array_equal(read, [rigid(1), rigid(2), rigid(3)])
    (tmp_path / "out.sens").unlink()
    lost = next((folder / "depth").glob("*2*.png" if "-" not in color_names[0] else "0000002-*"))
    lost.unlink()
    assert f"image/{color_names[1]}.jpg has no partner in depth" in refused(folder, tmp_path)


def test_frames_that_mostly_agree_are_not_paired_by_the_first_number(tmp_path):
    names = ["1-5", "2-6", "3-7"]
    folder = make_folder(tmp_path / "in", names, depth_names=["1-5", "2-9", "3-7"])
    (folder / "trajectory.log").write_text(log_text([rigid(index) for index in range(3)]))
    assert "color/2-6.jpg has no partner in depth" in refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"depths": (0, 2, 3)}, "color/frame-000001.color.jpg has no partner in depth"),
        ({"depths": (0, 2)}, "color/frame-000001.color.jpg has no partner in depth"),
        ({"poses": (0, 2, 3)}, "color/frame-000001.color.jpg has no partner in poses"),
        ({"poses": (0, 1, 2, 3)}, "poses/frame-000003.pose.txt has no partner in color"),
    ],
)
def test_a_missing_file_of_a_frame_shifts_nothing(tmp_path, missing, message):
    assert message in refused(seven_scenes(tmp_path / "in", **missing), tmp_path)


def test_a_number_that_all_files_share_is_no_frame(tmp_path):
    folder = make_folder(
        tmp_path / "in", ["rgb_640_3", "rgb_640_4"], depth_names=["depth16_4", "depth16_3"]
    )
    (folder / "trajectory.log").write_text(log_text([rigid(3), rigid(4)]))
    _, _, _, frames, _ = imported(folder, tmp_path)
    assert np.array_equal(frames[0].depth, depth_values(1))
    (tmp_path / "out.sens").unlink()
    (folder / "color" / "rgb_640_03.jpg").write_bytes(picture(0))
    assert "are of the same frame" in refused(folder, tmp_path)


def test_poses_of_a_log_go_by_its_frame_numbers(tmp_path):
    folder = make_folder(tmp_path / "in", ["10", "20", "40"])
    log = folder / "trajectory.log"
    poses = {number: rigid(number) for number in (40, 10, 20)}
    lines = log_text(poses.values()).replace("2 2 3\n", "20 20 21\n").replace("1 1 2\n", "10 0 0\n")
    log.write_text(lines.replace("0 0 1\n", "40 0 0\n", 1))
    assert np.array_equal(imported(folder, tmp_path)[1], [poses[10], poses[20], poses[40]])
    (tmp_path / "out.sens").unlink()
    log.write_text(log.read_text().replace("40 0 0", "30 0 0"))
    assert "has a pose of frame 30" in refused(folder, tmp_path)
    log.write_text(log_text(poses.values()))  # counts its poses: by order
    assert np.array_equal(imported(folder, tmp_path)[1], [*poses.values()])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no pose"),
        (log_text([rigid(0)] * 2), "holds 2 poses"),
        (log_text([rigid(0)] * 3) + "3 3 4\n", "holds 16 lines, an Open3D log has 5 a frame"),
        (log_text([rigid(0)] * 3).replace("1 1 2", "1 1"), "line 6 holds 2 numbers"),
        # A number that slipped into the next line: there are as many in all.
        (log_text([rigid(0)] * 3).replace("1 1 2\n", "1 1\n2 "), "line 6 holds 2 numbers"),
        (log_text([rigid(0)] * 3).replace("0 0 0 1", "0 0 0", 1), "line 5 holds 3 numbers"),
        (
            log_text([rigid(0)] * 3).replace("0 0 0 1", "0 0 0 one", 1),
            "convert string to float: 'one'",
        ),
        (log_text([rigid(0), rigid(1).T, rigid(2)]), "pose 2: the matrix is not a rigid"),
        (log_text([rigid(0), 2 * rigid(1), rigid(2)]), "not a rigid"),
        (log_text([np.diag([1.0, 1, -1, 1])] * 3), "not a rigid"),
        (log_text([rigid(0), rigid(1).T, rigid(2)]), "transposed, so write its columns as rows"),
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
        (
            "# x\n1 0 0 nan 0 0 0 1\n",
            "line 2 is not of the form 'timestamp tx ty tz qx qy qz qw'; export",
        ),
        ("1 0 0 0 0 0 0 0\n", "quaternion of length 0; export it again"),
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
