"""Own captures to scene stores: every layout, what is found out, what is asked, what is refused."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from fixtures import captures
from fixtures.captures import FURNITURE, room_capture
from fixtures.real_data import SHIPPED
from fixtures.repository import ROOT
from threedrs.cli import app
from threedrs.errors import ConfigError, DataError, ThreedrsError
from threedrs.scannet.posed_images import export_posed_images
from threedrs.scannet.rgbd_frames import RgbdFrames, import_rgbd
from threedrs.scenes.capture import CaptureOptions, build_capture, check_target, open_capture
from threedrs.scenes.store import SceneStore
from threedrs.teachers.feature_store import write_root

ROOM = room_capture(12)
LIVING_ROOM = SHIPPED / "livingroom1"
LIVING_INTRINSIC = "525,525,319.5,239.5"
# Poses of a .sens and of an exported text are f32; the images of two layouts are JPEGs.
CLOSE = 1e-4


def built(capture, tmp_path, name="own", **options):
    return build_capture(capture, tmp_path / f"{name}.zarr", CaptureOptions(**options))


def write_sens(capture, folder):
    import_rgbd(captures.write_open3d(capture, folder / "loose"), folder / "room.sens")
    return folder / "room.sens"


def write_posed_images(capture, folder):
    export_posed_images(write_sens(capture, folder), folder / "posed_images" / "room")
    return folder / "posed_images" / "room"


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> SceneStore:
    folder = tmp_path_factory.mktemp("plain")
    return built(captures.write_open3d(ROOM, folder / "in"), folder)[0]


@pytest.mark.parametrize(
    ("write", "layout"),
    [
        (captures.write_tum, "poses of groundtruth.txt"),
        (captures.write_seven_scenes, "7-Scenes"),
        (captures.write_pose_texts, "poses of pose"),
        (captures.write_scannetpp, "ScanNet++ iPhone"),
        (captures.write_arkitscenes, "ARKitScenes"),
        (write_sens, ".sens"),
        (write_posed_images, "posed_images"),
    ],
)
def test_every_layout_gives_the_same_frames(tmp_path, write, layout):
    scale = 5000 if write is captures.write_tum else None
    with open_capture(write(ROOM, tmp_path / "in"), CaptureOptions(depth_scale=scale)) as frames:
        if isinstance(frames, RgbdFrames):
            assert layout in frames.facts[0]
        assert len(frames) == 12
        assert frames.valid.all()
        assert np.allclose(frames.poses, ROOM.poses, atol=CLOSE)
        matrix = frames.header.intrinsic_depth
        assert np.allclose(matrix[[0, 1, 0, 1], [0, 1, 2, 2]], ROOM.intrinsic)
        for index in (0, 11):
            assert np.array_equal(frames.depth_millimetres(index), ROOM.depths[index])
            color = frames.color(index)
            step = len(color) // 120
            assert np.abs(color[::step, ::step].astype(int) - ROOM.images[index]).mean() < 5


def test_the_scene_is_the_room_that_was_seen(plain):
    points = plain.coordinates()[plain.depth() > 0]
    assert np.allclose(points.min(axis=0), [0, 0, 0], atol=0.01)
    assert np.allclose(points.max(axis=0), [5, 4, 1.5], atol=0.02)  # it looks down
    lower, upper = FURNITURE[:, 0], FURNITURE[:, 1]
    expected = np.concatenate([(lower + upper) / 2, upper - lower], axis=1)
    found = plain.boxes("pred")
    for box in expected:
        assert np.abs(found.boxes - box).max(axis=1).min() < 0.2
    # A model that is asked where the table is finds it in the frames that show it.
    assert plain.masks("pred")[0].any(axis=(1, 2, 3)).all()
    assert any("rough" in note for note in plain.attributes["notes"])
    assert (plain.scene, plain.split, plain.frame_ids) == ("own", "own", list(range(12)))


def test_images_of_a_camera_held_upright_are_turned(plain, tmp_path):
    folder = captures.write_seven_scenes(ROOM.turned_images(), tmp_path / "in")
    store, facts = built(folder, tmp_path)
    assert "images: turned left by 90 degrees, so that up is their top" in facts
    assert store.depth_size == (160, 120)
    assert np.allclose(store.poses(), plain.poses(), atol=CLOSE)
    assert np.allclose(store.depth_intrinsic(), plain.depth_intrinsic())
    assert np.array_equal(store.depth(), plain.depth())
    # JPEG blurs edges of colour.
    assert np.abs(store.rgb().astype(int) - plain.rgb()).mean() < 3


def test_boxes_of_the_user_turn_with_the_scene(tmp_path, monkeypatch):
    # Clusters would be thrown away, after a search through the whole cloud.
    monkeypatch.setattr("threedrs.scenes.capture.cluster_boxes", None)
    quarter = Rotation.from_euler("x", -90, degrees=True).as_matrix()  # z goes to y
    folder = captures.write_open3d(ROOM.turned_world(quarter), tmp_path / "in")
    table = {"boxes": [[1.2, 0.35, -0.85, 1.2, 0.7, 0.7]], "ids": [7], "labels": ["table"]}
    (tmp_path / "boxes.json").write_text(json.dumps({"own": table}))
    store, facts = built(folder, tmp_path, boxes=tmp_path / "boxes.json")
    assert "up: y of the capture" in " ".join(facts)
    found = store.boxes("pred")
    assert np.allclose(found.boxes, [[1.2, 0.85, 0.35, 1.2, 0.7, 0.7]], atol=0.02)
    assert (found.ids.tolist(), found.labels) == ([7], ("table",))
    assert f"boxes: of {tmp_path / 'boxes.json'}, turned: 1" in facts
    (tmp_path / "boxes.json").write_text(json.dumps({"another": []}))
    with pytest.raises(ThreedrsError, match=r"no boxes of own.*another"):
        built(folder, tmp_path, boxes=tmp_path / "boxes.json")


def test_frames_without_pose_are_left_out_and_counted(tmp_path):
    folder = captures.write_pose_texts(ROOM, tmp_path / "in")
    np.savetxt(folder / "pose" / "00003.txt", np.full((4, 4), -np.inf))
    np.savetxt(folder / "pose" / "00005.txt", np.full((4, 4), np.nan))
    store, facts = built(folder, tmp_path)
    assert "poses: 2 frames have none: left out" in facts
    assert store.frame_ids == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]


def test_the_shipped_living_room_stands(tmp_path):
    store, facts = built(LIVING_ROOM, tmp_path, "living", intrinsic=LIVING_INTRINSIC)
    assert any(fact.startswith("up: -y of the capture, found by the floor") for fact in facts)
    points = store.coordinates()[store.depth() > 0]
    low, high = np.percentile(points[:, 2], (2, 99.5))
    assert abs(low) < 0.06
    assert 1.0 < high < 3.0
    # A tenth of the points and more are the floor, and the cameras are above it, looking level.
    assert (np.abs(points[:, 2]) < 0.05).mean() > 0.1
    assert (store.poses()[:, 2, 3] > 0.25).all()
    assert (store.poses()[:, 2, 1] < -0.8).all()  # the images' down is the world's


def test_big_captures_are_looked_at_by_strides(tmp_path, monkeypatch):
    folder = captures.write_open3d(ROOM, tmp_path / "in")
    monkeypatch.setattr("threedrs.scenes.capture._MOST_CANDIDATES", 5)
    monkeypatch.setattr("threedrs.scenes.capture._CLOUD_FRAMES", 4)
    steps = []
    store, _ = build_capture(folder, tmp_path / "own.zarr", CaptureOptions(frames=2), steps.append)
    assert len(store.frame_ids) == 2
    assert set(store.frame_ids) <= {0, 3, 6, 9}
    assert "reading depth, frame 4 of 4" in steps


def test_frames_are_chosen_by_what_they_see(tmp_path):
    # The first half of the capture stands still, so that its frames see what the first one sees.
    still = [0] * 40 + list(range(12))
    walk = captures.Capture(ROOM.images[still], ROOM.depths[still], ROOM.poses[still])
    store, facts = built(captures.write_open3d(walk, tmp_path / "in"), tmp_path, frames=6)
    assert "frames: 6 of 52, by what they see of the room" in facts
    assert sum(frame <= 40 for frame in store.frame_ids) <= 1
    coverage = store.attributes["coverage"]
    assert 0.8 * coverage["coverable"] <= coverage["covered"] <= coverage["coverable"]
    assert store.attributes["strategy"] == "coverage"


def spoil(kind):
    """Return what damages a capture of the layout that `write_open3d` writes."""

    def image(name, content):
        return lambda folder: Image.fromarray(content).save(folder / name)

    small = image("color/00004.jpg", np.zeros((60, 80, 3), dtype=np.uint8))
    return {
        "intrinsic": lambda folder: (folder / "intrinsic.txt").unlink(),
        "size": small,
        "colour": lambda folder: (folder / "color" / "00004.jpg").write_bytes(b"no image"),
        "depth": lambda folder: (folder / "depth" / "00004.png").write_bytes(b"no image"),
        "bytes": image("depth/00000.png", np.zeros((120, 160), dtype=np.uint8)),
        "poses": lambda folder: (folder / "trajectory.log").unlink(),
        "fewer": lambda folder: (folder / "depth" / "00004.png").unlink(),
        "millimetres": lambda folder: captures.write_open3d(ROOM, folder, 20.0),
        "unposed": lambda folder: (folder / "trajectory.log").write_text(
            captures.log_text(np.full((12, 4, 4), -np.inf))
        ),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("intrinsic", "holds no intrinsic.*give --intrinsic fx,fy,cx,cy"),
        ("size", "00004.jpg: has 80x60 pixels, the first colour image 160x120, and 1 of 12"),
        ("colour", "00004.jpg: is not a readable image"),
        ("depth", "00004.png: is not a readable image"),
        ("bytes", "00000.png: is not a 16-bit grey PNG"),
        ("poses", "holds no trajectory"),
        ("fewer", "00004.jpg has no partner in depth"),
        ("millimetres", "which no room has|give --depth-scale"),
        ("unposed", "no frame has a pose; give the poses by --trajectory"),
    ],
)
def test_a_bad_capture_is_one_line_and_nothing_is_written(tmp_path, kind, message):
    folder = captures.write_open3d(ROOM, tmp_path / "in")
    spoil(kind)(folder)
    with pytest.raises(ThreedrsError, match=message) as caught:
        built(folder, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.zarr"))


@pytest.mark.parametrize(
    "write",
    [
        captures.write_seven_scenes,
        captures.write_scannetpp,
        captures.write_arkitscenes,
        write_sens,
        write_posed_images,
    ],
)
def test_other_poses_are_not_silently_ignored(tmp_path, write):
    with pytest.raises(ThreedrsError, match=r"--trajectory.*leave it out|leave out --trajectory"):
        built(write(ROOM, tmp_path / "in"), tmp_path, trajectory=tmp_path / "better.log")


@pytest.mark.parametrize("write", [captures.write_seven_scenes, write_posed_images])
def test_no_poses_are_asked_for_that_the_format_would_refuse(tmp_path, write):
    folder = write(ROOM, tmp_path / "in")
    for file in folder.glob("*[0-9].txt" if write is write_posed_images else "*.pose.txt"):
        np.savetxt(file, np.full((4, 4), -np.inf))
    with pytest.raises(ThreedrsError, match="no frame has a pose; track the capture again"):
        built(folder, tmp_path)


def test_what_the_format_does_not_say_is_asked(tmp_path):
    folder = captures.write_tum(ROOM, tmp_path / "in", depth_scale=1000)
    with pytest.raises(ThreedrsError, match="--depth-scale 5000 or --depth-scale 1000"):
        built(folder, tmp_path)
    turned = np.ascontiguousarray(np.rot90(ROOM.images, axes=(1, 2)))
    other = captures.write_open3d(ROOM, tmp_path / "turned")
    for number, image in enumerate(turned):
        Image.fromarray(image).save(other / "color" / f"{number:05d}.jpg")
    with pytest.raises(ThreedrsError, match=r"colour 120x160, depth 160x120.*turn the colour"):
        built(other, tmp_path)
    sens = write_sens(ROOM, tmp_path / "sens")
    with pytest.raises(ThreedrsError, match="its format states what --depth-scale would say"):
        built(sens, tmp_path, depth_scale=1000)


def test_what_is_typed_wrong_is_said_before_anything_is_read(tmp_path):
    for capture, options, message in (
        (tmp_path / "none", {}, "none: does not exist; name a folder"),
        (tmp_path, {"up": "w"}, "--up w: choose one of: x, -x"),
        (tmp_path, {"boxes": tmp_path / "none.json"}, "none.json: cannot be read"),
        (tmp_path, {}, "holds no colour images"),
    ):
        with pytest.raises(ThreedrsError, match=message):
            built(capture, tmp_path, **options)


def test_a_folder_that_holds_a_video_is_told_how_to_extract_it(tmp_path):
    folder = captures.write_open3d(ROOM, tmp_path / "in")
    (folder / "color").rename(folder / "elsewhere")
    (folder / "rgb.mp4").touch()
    with pytest.raises(ThreedrsError, match=r"ffmpeg -i rgb.mp4 -start_number 0 color/%06d.jpg"):
        built(folder, tmp_path)


def test_what_is_wrong_with_the_voxels_names_the_capture(tmp_path, monkeypatch):
    folder = captures.write_open3d(ROOM, tmp_path / "in")
    monkeypatch.setattr("threedrs.scenes.coverage._MOST_VOXELS_AN_AXIS", 20)
    with pytest.raises(ThreedrsError, match=f"^{folder}: .*km wide"):
        built(folder, tmp_path)


def test_other_kinds_of_depth_are_told_what_to_become(tmp_path):
    folder = captures.write_open3d(ROOM, tmp_path / "in")
    for image in (folder / "depth").iterdir():
        image.rename(image.with_suffix(".npy"))
    with pytest.raises(ThreedrsError, match=r"\(but .npy\); convert them, depth to 16-bit PNG"):
        built(folder, tmp_path)


def test_plausible_units_decide_where_only_one_is(tmp_path):
    far = captures.Capture(ROOM.images, ROOM.depths, ROOM.poses)
    folder = captures.write_tum(far, tmp_path / "in", depth_scale=9000)
    # A median of 2.2 m, written as 9000 a metre, is 4 m at 5000 and 20 m at 1000.
    facts = RgbdFrames(folder).facts
    assert any("5000 units a metre (the only one of 5000 and 1000" in fact for fact in facts)


@pytest.mark.parametrize("name", ["a b.zarr", "room", "..zarr", "-x.zarr", f"{'x' * 65}.zarr"])
def test_names_that_no_path_should_have_are_refused(tmp_path, name):
    with pytest.raises(ThreedrsError, match=re.escape("NAME.zarr")):
        build_capture(LIVING_ROOM, tmp_path / name, CaptureOptions(intrinsic=LIVING_INTRINSIC))


def test_only_a_scene_store_is_replaced(plain, tmp_path):
    store, own = tmp_path / "store.zarr", tmp_path / "own.zarr"
    shutil.copytree(plain.path, store)
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    features = tmp_path / "features.zarr"
    write_root(features)
    for replace in (False, True):
        for other in (own, features):
            with pytest.raises(ConfigError, match="is not a scene store to replace"):
                check_target(other, replace=replace)
        # Capture and store in the wrong order: a capture's folder is not named as a store.
        with pytest.raises(ConfigError, match=re.escape("NAME.zarr")):
            check_target(tmp_path, replace=replace)
        check_target(tmp_path / "new.zarr", replace=replace)
    with pytest.raises(ConfigError, match="give --force to replace it"):
        check_target(store, replace=False)
    check_target(store, replace=True)
    with pytest.raises(DataError, match="is a scene store already"):
        open_capture(store, CaptureOptions())
    assert (own / "notes.txt").read_text() == "mine"


def test_the_commands_of_the_page_on_own_captures(tmp_path, monkeypatch):
    """Every ``threedrs scene`` command in docs/OWN_CAPTURES.md runs, in its order, as typed."""
    captures.write_open3d(ROOM, tmp_path / "mylab")
    captures.write_tum(ROOM, tmp_path / "tum")
    (tmp_path / "boxes.json").write_text(json.dumps({"mylab": [[1, 1, 0.3, 0.5, 0.5, 0.6]]}))
    (tmp_path / "tests/data").mkdir(parents=True)
    (tmp_path / "tests/data/livingroom1").symlink_to(LIVING_ROOM)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "OWN_CAPTURES.md").read_text()
    commands = re.findall(r"^threedrs (scene .+)$", page, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        result = CliRunner().invoke(app, command.split())
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert (tmp_path / "mylab.png").is_file()
    again = CliRunner().invoke(app, ["scene", "build", "mylab", "mylab.zarr"])
    assert again.exit_code != 0
    assert "give --force to replace it" in str(again.exception)
