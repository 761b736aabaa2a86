"""One room's files in ScanNet's formats: stream, mesh, segments, aggregation, meta, proposals.

The room is written as a scanner leaves it: in a frame of its own, turned and shifted, which
``axisAlignment`` of the meta file brings back to the axis-aligned world. Some four seconds and
12 MB a room of 104 frames.
"""

import json

import numpy as np
import scipy.sparse

from threedrs.demo.camera_walk import Walk
from threedrs.demo.render import (
    COLOR_INTRINSIC,
    COLOR_SIZE,
    DEPTH_INTRINSIC,
    DEPTH_SIZE,
    FrameRenderer,
)
from threedrs.demo.room_mesh import SceneMesh
from threedrs.demo.room_objects import Room
from threedrs.io.files import atomic_file, write_text
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.sens import SensHeader, SensWriter

FRAME_INTERVAL = 33_333  # microseconds
FALSE_PROPOSALS = 3

_SEGMENTATION = {
    "kThresh": "0.0001", "segMinVerts": "20", "minPoints": "750", "maxPoints": "30000",
    "thinThresh": "0.05", "flatThresh": "0.001", "minLength": "0.02", "maxLength": "1",
}  # fmt: skip


def scanner_frame(room: Room, rng: np.random.Generator) -> np.ndarray:
    """Return a random axis alignment (4,4) f64: scanner frame to axis-aligned world, metres.

    A turn about z and a shift, rounded to the six decimals that the meta file holds.
    """
    angle = rng.uniform(-np.pi, np.pi)
    alignment = np.eye(4)
    alignment[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    corner = np.array([*room.size[:2], 0.0]) / 2 + [0.4, 0.4, 0.05]
    alignment[:3, 3] = -alignment[:3, :3] @ (corner + rng.uniform(-0.2, 0.2, 3) * [1, 1, 0.2])
    return alignment.round(6)


def write_stream(
    scan: ScanFiles, room: Room, mesh: SceneMesh, to_scanner: np.ndarray, walk: Walk,
    noise: np.random.SeedSequence,
) -> None:  # fmt: skip
    """Write the ``.sens`` file of a walk; ``noise``: the seed of the sensor's."""
    renderer = FrameRenderer(mesh, room.floor_style, noise)
    header = SensHeader(
        sensor_name="threedrs demo",
        intrinsic_color=COLOR_INTRINSIC, extrinsic_color=np.eye(4),
        intrinsic_depth=DEPTH_INTRINSIC, extrinsic_depth=np.eye(4),
        color_compression="jpeg", depth_compression="zlib",
        color_width=COLOR_SIZE[0], color_height=COLOR_SIZE[1],
        depth_width=DEPTH_SIZE[0], depth_height=DEPTH_SIZE[1], depth_shift=1000.0,
    )  # fmt: skip
    with SensWriter.create(scan.sens, header) as writer:
        for index, (pose, lost) in enumerate(zip(walk.poses, walk.lost, strict=True)):
            color, depth = renderer.render(pose, index)
            stored = np.full((4, 4), -np.inf) if lost else to_scanner @ pose
            time = index * FRAME_INTERVAL
            writer.add(stored, color, depth, color_timestamp=time, depth_timestamp=time)


def write_mesh(scan: ScanFiles, mesh: SceneMesh, to_scanner: np.ndarray) -> None:
    """Write the mesh as ScanNet does: binary little-endian PLY, RGBA vertex colours."""
    count = len(mesh.vertices)
    vertices = np.empty(count, [("xyz", "<f4", 3), ("rgba", "u1", 4)])
    vertices["xyz"] = mesh.vertices @ to_scanner[:3, :3].T + to_scanner[:3, 3]
    vertices["rgba"] = np.append(mesh.vertex_rgb, np.full((count, 1), 255), axis=1)
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.triangles
    header = "\n".join(
        ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
        + [f"property float {axis}" for axis in "xyz"]
        + [f"property uchar {channel}" for channel in ("red", "green", "blue", "alpha")]
        + [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    )
    with atomic_file(scan.mesh) as temporary:
        temporary.write_bytes(header.encode() + vertices.tobytes() + faces.tobytes())


def write_annotation(scan: ScanFiles, room: Room, mesh: SceneMesh) -> None:
    """Write segments and aggregation. A segment's id is its first vertex, as in ScanNet."""
    _, first, segment = np.unique(mesh.vertex_segment, return_index=True, return_inverse=True)
    segment_ids = first[segment]
    ids = segment_ids.tolist()
    segments = {"params": _SEGMENTATION, "sceneId": scan.scene, "segIndices": ids}
    write_text(scan.segments, json.dumps(segments))
    aggregation = {
        "sceneId": f"scannet.{scan.scene}",
        "appId": "Aggregator.v2",
        "segGroups": [
            {
                "id": piece.id,
                "objectId": piece.id,
                "segments": np.unique(segment_ids[mesh.vertex_object == piece.id]).tolist(),
                "label": piece.label,
            }
            for piece in room.pieces
        ],
        "segmentsFile": f"scannet.{scan.segments.name}",
    }
    write_text(scan.aggregation, json.dumps(aggregation))


def write_meta(scan: ScanFiles, room: Room, alignment: np.ndarray, frames: int) -> None:
    """Write ``<scene>.txt``: sizes, intrinsics and the axis alignment, one key a line."""
    values = {
        "axisAlignment": " ".join(f"{value:f}" for value in alignment.ravel()),
        "colorToDepthExtrinsics": " ".join(f"{value:f}" for value in np.eye(4).ravel()),
        "numColorFrames": frames,
        "numDepthFrames": frames,
        "numIMUmeasurements": 0,
        "sceneType": room.theme.title(),
    }
    for kind, size, intrinsic in (
        ("color", COLOR_SIZE, COLOR_INTRINSIC),
        ("depth", DEPTH_SIZE, DEPTH_INTRINSIC),
    ):
        values |= {f"{kind}Width": size[0], f"{kind}Height": size[1]}
        for row, axis in enumerate("xy"):
            values[f"f{axis}_{kind}"] = f"{intrinsic[row, row]:f}"
            values[f"m{axis}_{kind}"] = f"{intrinsic[row, 2]:f}"
    # ScanNet's files are in the order of their keys.
    write_text(scan.meta, "".join(f"{key} = {value}\n" for key, value in sorted(values.items())))


def _grown(mesh: SceneMesh, inside: np.ndarray, reach: float) -> np.ndarray:
    """Vertices (P,) bool within ``reach`` metres of the box of the vertices ``inside``."""
    low, high = mesh.vertices[inside].min(axis=0), mesh.vertices[inside].max(axis=0)
    return ((mesh.vertices >= low - reach) & (mesh.vertices <= high + reach)).all(axis=1)


def make_proposals(room: Room, mesh: SceneMesh, rng: np.random.Generator) -> np.ndarray:
    """Return detector-like masks (N,P) bool, best first.

    One for each piece of furniture: its vertices less one cut-off end and a random few, plus some
    of its surroundings, the better the higher its score; some are missed. Then false positives:
    random spots of walls, floor and furniture.
    """
    scored = []
    for piece in room.furniture:
        truth = mesh.vertex_object == piece.id
        quality = rng.beta(5, 1.6)
        if quality < 0.35:
            continue
        axis = rng.integers(3)
        place = mesh.vertices[:, axis]
        share = (1 - quality) * rng.uniform(0.1, 0.5)
        cut = np.quantile(place[truth], share if rng.random() < 0.5 else 1 - share)
        kept = truth & ((place >= cut) if cut <= np.median(place[truth]) else (place <= cut))
        kept &= rng.random(len(truth)) < 0.97
        spill = _grown(mesh, truth, (1 - quality) * 0.15) & ~truth
        mask = kept | (spill & (rng.random(len(truth)) < 0.3))
        scored.append((quality, mask if mask.any() else truth))
    for _ in range(FALSE_PROPOSALS):
        middle = mesh.vertices[rng.integers(len(mesh.vertices))]
        mask = np.linalg.norm(mesh.vertices - middle, axis=1) < rng.uniform(0.3, 0.7)
        scored.append((rng.uniform(0.05, 0.6), mask))
    scored.sort(key=lambda row: -row[0])
    return np.stack([mask for _, mask in scored])


def write_proposals(scan: ScanFiles, masks: np.ndarray) -> None:
    """Write masks (N,P) bool as ``scipy.sparse.save_npz`` does."""
    with atomic_file(scan.proposals) as temporary, temporary.open("wb") as stream:
        scipy.sparse.save_npz(stream, scipy.sparse.csr_matrix(masks.astype(np.uint8)))
