"""The scan's mesh: fine triangles with colours, light, object and segment of every vertex.

Surfaces are cut into squares of about a decimetre, so that boxes and masks taken from vertices are
right, and light is baked into the vertices: ambient occlusion and the soft shadow of two ceiling
lamps, by ray casting against the mesh itself. About 15,000 vertices and half a second a room.
The rendered frames see this very mesh, so depth and mesh agree.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import open3d as o3d

from threedrs.demo.room_objects import RING_POINTS, Part, Piece, Rgb, Room, unit_ring

FURNITURE_CELL, SHELL_CELL = 0.12, 0.14  # metres between vertices
FURNITURE_SEGMENT, SHELL_SEGMENT = 0.6, 1.4  # longest edge of a segment, metres
SMALL_PART = 0.2  # metres; a part no longer than this is one segment
FLOOR_DROP = 0.012  # metres by which the floor is lower at one wall than at the opposite one
BOARD_RGB = (228, 226, 220)
OCCLUSION_RAYS, OCCLUSION_REACH = 32, 0.8
LIGHT_INSET, LIGHT_OFFSET = 0.02, 0.004  # metres


@dataclass(frozen=True, kw_only=True)
class SceneMesh:
    """A triangle mesh in the axis-aligned world frame (metres).

    ``vertices`` (P,3) f64; ``triangles`` (M,3) i32; ``vertex_object`` (P,) i32, -1 for none;
    ``vertex_segment`` (P,) i32; ``vertex_light`` (P,) f32, 0..1; ``triangle_rgb`` (M,3) f32,
    0..255, without light; ``triangle_floor`` (M,) bool; ``triangle_plane`` (M,) i32, equal for
    triangles of one flat face; ``vertex_rgb`` (P,3) u8, with light.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    vertex_object: np.ndarray
    vertex_segment: np.ndarray
    vertex_light: np.ndarray
    vertex_rgb: np.ndarray
    triangle_rgb: np.ndarray
    triangle_floor: np.ndarray
    triangle_plane: np.ndarray
    caster: o3d.t.geometry.RaycastingScene  # of one thread

    def cast(self, origin: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        """Return what rays (R,3) from one point (3,) meet, under Open3D's names, a row a ray.

        ``t_hit`` counts lengths of a ray's direction; ``primitive_ids`` i32 is -1 for nothing.
        """
        rays = np.empty((len(directions), 6), np.float32)
        rays[:, :3], rays[:, 3:] = origin, directions
        answer = self.caster.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
        met = {name: tensor.numpy() for name, tensor in answer.items()}
        return met | {"primitive_ids": met["primitive_ids"].astype(np.int32)}


@dataclass(frozen=True)
class _Patch:
    """A grid of vertices (rows*columns,3) with outward normals, its triangles and its segments."""

    vertices: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    segments: np.ndarray
    curved: bool = False


def _grid_triangles(rows: int, columns: int, wrap: bool = False) -> np.ndarray:
    """Two triangles for each square of a grid; ``wrap`` joins the last column to the first."""
    index = np.arange(rows * columns).reshape(rows, columns)
    if wrap:
        index = np.append(index, index[:, :1], axis=1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)


def _rectangle(
    origin: np.ndarray, u: np.ndarray, v: np.ndarray, cell: float, segment: float
) -> _Patch:
    """A subdivided rectangle at ``origin`` with edges ``u`` and ``v``; its normal is u x v."""
    lengths = np.array([np.linalg.norm(u), np.linalg.norm(v)])
    columns, rows = np.maximum(2, np.ceil(lengths / cell).astype(int) + 1).tolist()
    s, t = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    places = np.stack([s.ravel(), t.ravel()], axis=1)
    count = np.maximum(1, np.ceil(lengths / segment).astype(int))
    cells = np.minimum((places * count).astype(int), count - 1)
    normal = np.cross(u, v)
    return _Patch(
        origin + places[:, :1] * u + places[:, 1:] * v,
        np.broadcast_to(normal / np.linalg.norm(normal), (rows * columns, 3)),
        _grid_triangles(rows, columns),
        cells[:, 0] + cells[:, 1] * count[0],
    )


def _box_patches(size: np.ndarray) -> list[_Patch]:
    x, y, z = np.diag(size)
    corner = -size / 2
    faces = [
        (corner + z, x, y), (corner, y, x), (corner, x, z), (corner + y, z, x),
        (corner, z, y), (corner + x, y, z),
    ]  # fmt: skip
    return [_rectangle(*face, FURNITURE_CELL, FURNITURE_SEGMENT) for face in faces]


def _round_patches(part: Part) -> list[_Patch]:
    """Side and top of a cylinder, or a whole pad, around the part's own middle."""
    size = np.array(part.size)
    ring = unit_ring(part.shape)
    if part.shape == "cylinder":
        rows = max(2, int(np.ceil(size[2] / (2 * FURNITURE_CELL))) + 1)
        height = np.linspace(-1, 1, rows)
        widest = max(1.0, part.taper)
        radius = (part.taper + (1 - part.taper) * (height + 1) / 2) / widest
    else:
        height = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 9))
        radius = (1 - np.abs(height) ** 3).clip(0) ** (1 / 3)
    rings = [np.insert(ring * r, 2, h, axis=1) for r, h in zip(radius, height, strict=True)]
    side = np.concatenate(rings)
    outward = side if part.shape == "pad" else side * np.array([1, 1, 0])
    outward = outward / size
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    normals = np.where(length > 1e-9, outward / np.maximum(length, 1e-9), [0.0, 0.0, 1.0])
    triangles = _grid_triangles(len(height), RING_POINTS, wrap=True)
    patches = [_Patch(side * size / 2, normals, triangles, np.zeros(len(side), int), curved=True)]
    if part.shape == "cylinder":
        top = np.append(side[-RING_POINTS:], [[0.0, 0.0, 1.0]], axis=0) * size / 2
        rim = np.arange(RING_POINTS)
        fan = np.stack([rim, np.roll(rim, -1), np.full(RING_POINTS, RING_POINTS)], axis=1)
        up = np.broadcast_to([0.0, 0.0, 1.0], top.shape)
        patches.append(_Patch(top, up, fan, np.zeros(len(top), int)))
    return patches


class _Builder:
    """Collects patches; every (patch, segment) pair becomes a segment of the scan."""

    def __init__(self) -> None:
        self.columns: dict[str, list[np.ndarray]] = defaultdict(list)
        self.vertex_count = 0
        self.segment_count = 0
        self.plane_count = 0

    def add(self, patch: _Patch, piece_id: int, rgb: Rgb, on_floor: bool = False) -> None:
        count = len(patch.vertices)
        rows = self.columns
        rows["vertices"].append(patch.vertices)
        rows["normals"].append(patch.normals)
        # Where light is taken: just off the surface, and off its edge, which may lie in another's.
        inward = patch.vertices.mean(axis=0) - patch.vertices
        length = np.linalg.norm(inward, axis=1, keepdims=True)
        inward *= (0 if patch.curved else LIGHT_INSET) / np.maximum(length, LIGHT_INSET)
        rows["lit"].append(patch.vertices + inward + LIGHT_OFFSET * patch.normals)
        rows["triangles"].append(patch.triangles + self.vertex_count)
        rows["object"].append(np.full(count, piece_id))
        rows["segment"].append(patch.segments + self.segment_count)
        rows["rgb"].append(np.broadcast_to(np.array(rgb, np.float32), (len(patch.triangles), 3)))
        rows["floor"].append(np.full(len(patch.triangles), on_floor))
        planes = np.arange(len(patch.triangles)) * patch.curved  # of a curved face one a triangle
        rows["plane"].append(planes + self.plane_count)
        self.plane_count += int(planes.max()) + 1
        self.vertex_count += count
        self.segment_count += int(patch.segments.max()) + 1

    def add_piece(self, piece: Piece) -> None:
        cos, sin = np.cos(piece.yaw), np.sin(piece.yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        for part in piece.parts:
            size = np.array(part.size)
            patches = _box_patches(size) if part.shape == "box" else _round_patches(part)
            for patch in patches:
                moved = replace(
                    patch,
                    vertices=(patch.vertices + part.centre) @ turn.T + piece.position,
                    normals=patch.normals @ turn.T,
                    segments=patch.segments * (size.max() > SMALL_PART),
                )
                self.add(moved, piece.id, part.rgb)

    def add_shell(self, room: Room) -> None:
        """Floor and walls with skirting boards, and vents that no annotator labelled."""
        for piece in room.pieces:
            if piece.label not in ("wall", "floor"):
                continue
            edges = [np.diag(piece.size)[axis] for axis in range(3) if piece.size[axis] > 0]
            is_floor = piece.label == "floor"
            inward = np.array([0, 0, 1.0]) if is_floor else -np.sign(piece.centre) * [1, 1, 0]
            if is_floor:
                edges[1] = edges[1] - [0, 0, FLOOR_DROP]
            u, v = edges if np.cross(*edges) @ inward > 0 else edges[::-1]
            patch = _rectangle(piece.low, u, v, SHELL_CELL, SHELL_SEGMENT)
            rgb = room.floor_rgb if is_floor else room.wall_rgb
            self.add(patch, piece.id, rgb, on_floor=is_floor)
            if not is_floor:
                self._add_on_wall(piece, inward, 0.0, (-FLOOR_DROP, 0.08), 0.014, piece.id)
                high = piece.high[2] - 0.3
                self._add_on_wall(piece, inward, 0.4, (high, high + 0.16), 0.02, -1)

    def _add_on_wall(
        self, wall: Piece, inward: np.ndarray, inset: float, height: tuple[float, float],
        thickness: float, piece_id: int,
    ) -> None:  # fmt: skip
        """Add a white board on a wall, short of both its ends by ``inset`` of the wall's length."""
        length = np.where(np.abs(inward) > 0, thickness, wall.size * (1 - 2 * inset))
        size = length * [1, 1, 0] + [0, 0, height[1] - height[0]]
        centre = wall.centre * [1, 1, 0] + inward * thickness / 2 + [0, 0, sum(height) / 2]
        for side in _box_patches(size):
            self.add(replace(side, vertices=side.vertices + centre), piece_id, BOARD_RGB)


def _directions(count: int) -> np.ndarray:
    """Points (count,3) spread evenly over the unit sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _visible(
    caster: o3d.t.geometry.RaycastingScene, origins: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Whether nothing stands between each origin (R,3) and origin + offset: (R,) bool."""
    rays = np.concatenate([origins, offsets], axis=1).astype(np.float32)
    return ~caster.test_occlusions(o3d.core.Tensor.from_numpy(rays), 0.0, 1.0, nthreads=1).numpy()


def bake_light(
    caster: o3d.t.geometry.RaycastingScene, origins: np.ndarray, normals: np.ndarray, room: Room
) -> np.ndarray:
    """Return the light (P,) f32, 0..1, that points (P,3) just off the mesh receive.

    Ambient light, less what is near, plus two ceiling lamps with soft shadows.
    """
    towards = _directions(OCCLUSION_RAYS)[None] + normals[:, None] * 1.001  # cosine-weighted
    towards *= OCCLUSION_REACH / np.linalg.norm(towards, axis=2, keepdims=True)
    count = len(origins)
    repeated = np.repeat(origins, OCCLUSION_RAYS, axis=0)
    ambient = _visible(caster, repeated, towards.reshape(-1, 3)).reshape(count, -1).mean(axis=1)
    width, depth, height = room.size
    grid = np.array([[x, y] for x in (-0.3, -0.1, 0.1, 0.3) for y in (-0.2, 0.2)])
    direct = np.zeros(count)
    for spot in ((-width / 5, depth / 8), (width / 5, -depth / 8)):
        for shift in grid:
            offset = np.append(spot + shift, height - 0.05) - origins
            distance = np.linalg.norm(offset, axis=1)
            cosine = np.einsum("pc,pc->p", offset, normals) / distance
            lit = (cosine > 0) & _visible(caster, origins, offset)
            direct += lit * cosine * np.minimum(1.0, 2.4 / distance) / len(grid) / 2
    facing = 1 + normals @ np.array([0.05, 0.09, 0.02])  # tells a box's sides apart in the shade
    return (facing * (0.18 + 0.42 * ambient + 0.55 * direct)).clip(0, 1).astype(np.float32)


def build_mesh(room: Room) -> SceneMesh:
    """Return the room's mesh, in the axis-aligned world frame."""
    builder = _Builder()
    builder.add_shell(room)
    for piece in room.pieces:
        builder.add_piece(piece)
    rows = {name: np.concatenate(column) for name, column in builder.columns.items()}
    triangles = rows["triangles"].astype(np.int32)
    caster = o3d.t.geometry.RaycastingScene(nthreads=1)
    caster.add_triangles(
        o3d.core.Tensor.from_numpy(rows["vertices"].astype(np.float32)),
        o3d.core.Tensor.from_numpy(triangles.astype(np.uint32)),
    )
    light = bake_light(caster, rows["lit"], rows["normals"], room)
    albedo = np.zeros((len(light), 3), np.float32)
    for corner in range(3):
        albedo[triangles[:, corner]] = rows["rgb"]
    return SceneMesh(
        vertices=rows["vertices"], triangles=triangles,
        vertex_object=rows["object"].astype(np.int32),
        vertex_segment=rows["segment"].astype(np.int32), vertex_light=light,
        vertex_rgb=np.rint(albedo * light[:, None]).clip(0, 255).astype(np.uint8),
        triangle_rgb=rows["rgb"].astype(np.float32),
        triangle_floor=rows["floor"],
        triangle_plane=rows["plane"].astype(np.int32), caster=caster,
    )  # fmt: skip
