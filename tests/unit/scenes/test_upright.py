"""Which way is up in a capture, found by the floor and by how the camera was held."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fixtures.captures import room_capture
from threedrs.errors import DataError
from threedrs.scenes.upright import (
    AXES,
    camera_ups,
    find_planes,
    lying_note,
    quarter_turns,
    stand_up,
)

ROOM = room_capture(12)


def surfaces() -> np.ndarray:
    """A floor of 5 x 4 m at z = 0, two walls, and a table's top, a point every 10 cm."""
    x, y, z = np.arange(0, 5, 0.1), np.arange(0, 4, 0.1), np.arange(0, 2.5, 0.1)

    def plane(first, second, axis, at):
        grid = np.stack(np.meshgrid(first, second), -1).reshape(-1, 2)
        return np.insert(grid, axis, at, axis=1)

    return np.concatenate(
        [
            plane(x, y, 2, 0.0),
            plane(y, z, 0, 0.0),
            plane(x, z, 1, 4.0),
            plane(np.arange(1, 2, 0.1), np.arange(1, 2, 0.1), 2, 0.7),
        ]
    )


CLOUD = surfaces()


def standing(rotation: np.ndarray, shift=(0.0, 0.0, 0.0), **options):
    cloud = CLOUD @ rotation.T + shift
    turned = ROOM.turned_world(rotation, shift)
    return stand_up(cloud, find_planes(cloud), turned.poses, **options), turned


@pytest.mark.parametrize("axis", list(AXES))
def test_up_is_found_whichever_axis_it_is(axis):
    # A rotation that takes z to the axis: its third column is the axis.
    third = AXES[axis]
    first = np.roll(third, 1) ** 2
    rotation = np.column_stack([first, np.cross(third, first), third])
    found, _ = standing(rotation, (1.0, -2.0, 3.0))
    assert found.facts[0].startswith(f"up: {axis} of the capture, found by the floor")
    assert np.allclose(found.alignment[:3, :3] @ third, [0, 0, 1], atol=1e-9)
    # The floor went through the shift's own point.
    floor = found.alignment[:3, :3] @ [1.0, -2.0, 3.0] + found.alignment[:3, 3]
    assert abs(floor[2]) < 1e-6


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), shift=st.tuples(*[st.floats(-50, 50)] * 3))
def test_any_turn_of_a_capture_gives_the_same_scene_up_to_yaw(seed, shift):
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    found, turned = standing(rotation, shift)
    placed = found.alignment @ turned.poses
    # Heights, and the angles of all axes to z, do not depend on yaw. Two degrees may be a snap.
    assert np.allclose(placed[:, 2, 3], ROOM.poses[:, 2, 3], atol=0.2)
    assert np.allclose(placed[:, 2, :3], ROOM.poses[:, 2, :3], atol=np.sin(np.radians(2.1)))
    # The walls lie along the axes again, so what is left is a quarter of a turn.
    net = found.alignment[:3, :3] @ rotation
    yaw = np.degrees(np.arctan2(net[1, 0], net[0, 0])) % 90
    assert min(yaw, 90 - yaw) < 2.5


def test_what_is_asked_for_holds_and_a_scene_on_its_side_is_named():
    found, _ = standing(np.eye(3), asked="y")
    assert found.facts[0] == "up: y of the capture, as asked (--up)"
    assert any("lie on its side" in fact and "--up z" in fact for fact in found.facts)
    assert np.allclose(found.alignment[:3, :3] @ [0, 1, 0], [0, 0, 1])
    over, _ = standing(np.eye(3), asked="-z")
    assert any("be upside down" in fact and "--up z" in fact for fact in over.facts)
    agreed, _ = standing(np.eye(3), gravity="z")
    assert agreed.facts[0] == "up: z of the capture, as the format says"
    assert not any("warning" in fact for fact in agreed.facts)


def test_no_floor_is_asked_about_with_an_answer_that_works():
    walls = CLOUD[CLOUD[:, 2] > 1.0]
    planes = find_planes(walls)
    with pytest.raises(DataError, match=r"no floor is seen.*give --up z"):
        stand_up(walls, planes, ROOM.poses)
    found = stand_up(walls, planes, ROOM.poses, asked="z")
    assert "no floor is seen" in found.facts[1]


def test_a_camera_held_upright_is_known_by_its_level_axis():
    (up,), panned = camera_ups(ROOM.turned_images().poses)
    assert panned
    assert np.allclose(up, [0, 0, 1], atol=1e-6)
    assert quarter_turns(ROOM.turned_images().poses) == 1
    assert quarter_turns(ROOM.turned_images().turned_images().poses) == 2
    assert quarter_turns(ROOM.poses) == 0


def test_a_camera_held_upright_that_looks_level_knows_the_floor_but_not_beside_a_ceiling():
    level = room_capture(12, pitch=0.0).turned_images()
    assert len(camera_ups(level.poses)[0]) == 2
    found = stand_up(CLOUD, find_planes(CLOUD), level.poses)
    assert found.facts[0].startswith("up: z of the capture")
    # The floor again, 2.5 m higher.
    both = np.concatenate([CLOUD, CLOUD[CLOUD[:, 2] == 0.0] + [0, 0, 2.5]])
    with pytest.raises(DataError, match=r"give --up (z or --up -z|-z or --up z)$"):
        stand_up(both, find_planes(both), level.poses)
    assert stand_up(both, find_planes(both), level.poses, asked="z").alignment[2, 3] == 0


def test_a_camera_that_does_not_pan_says_only_where_the_images_top_is():
    still = np.repeat(ROOM.poses[:1], 5, axis=0)
    (up,), panned = camera_ups(still)
    assert not panned
    assert np.allclose(up, -still[0, :3, 1])


def test_a_scan_that_lies_is_noted_with_the_line_that_makes_it_stand():
    assert lying_note(ROOM.poses, "x.txt") is None
    lying = ROOM.turned_world(Rotation.from_euler("x", -90, degrees=True).as_matrix())
    note = lying_note(lying.poses, "scene0000_00.txt")
    assert note is not None
    assert "held with y up" in note
    assert "to scene0000_00.txt" in note
    values = note.split("axisAlignment = ")[1].split("'")[0].split()
    alignment = np.array(values, dtype=float).reshape(4, 4)
    assert np.allclose((alignment @ lying.poses)[:, :3, :3], ROOM.poses[:, :3, :3], atol=1e-9)
