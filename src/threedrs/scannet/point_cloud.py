"""A scene's published point cloud, ``pcd_with_object_aabbs/<split>/<scene>.pth``.

`torch.save` of a dict of numpy arrays. Used of it are: ``xyz`` (N,3) f32, the vertices of the
scan's mesh, in its order, but in the axis-aligned world already; ``aabb_obj_ids`` (K,) i16, rising
object ids; ``aabb_corner_xyz`` (K,8,3) f32, the corners of these objects' boxes. The last two are
None in scenes without annotation. With the ids this is complete where the published box files
are not, as these lack every scene whose ids are not 0..n-1.

Also reads ``pcd_discrete_0.1.pkl``, the voxels of all these point clouds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import SCENE_NAME, atomic_file
from threedrs.scannet.plain_pickle import as_array, load_pickle, load_torch

FARTHEST_VERTEX = 5e5  # metres from the origin: a box over all of it still fits float32
# A folder with point clouds has no meshes, so that data.point_clouds cannot be done without.
_REMEDY = "unpack its archive again (threedrs unpack), or copy the file again"
_VOXEL_REMEDY = "copy the file again, or take data.voxels out of the configuration"


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCloud:
    """Vertices and annotated objects of a scene, in the axis-aligned world, metres."""

    vertices_P3: np.ndarray  # (P,3) f64
    ids_K: np.ndarray | None  # (K,) i32 object ids, rising; None in a scene without annotation
    # (K,2,3) f64 lower and upper corner of each object's box, or None.
    corners_K23: np.ndarray | None


def read_point_cloud(path: Path) -> PointCloud:
    """Return a scene's point cloud.

    Raises:
        DataError: the file is missing, damaged, or not laid out as published; the message names
            the field.
    """
    content = load_torch(path, _REMEDY)
    if not isinstance(content, dict) or "xyz" not in content:
        raise DataError(f"{path}: holds no dict with a point cloud under xyz; {_REMEDY}")
    vertices_P3 = as_array(content["xyz"])
    if vertices_P3 is None or vertices_P3.ndim != 2 or vertices_P3.shape[1] != 3:
        raise DataError(f"{path}: xyz is not an array of shape (N, 3); {_REMEDY}")
    # Also so for NaN, which is not smaller than anything.
    wrong_P = ~(np.abs(vertices_P3) <= FARTHEST_VERTEX).all(axis=1)
    if wrong_P.any() or not len(wrong_P):
        what = f"row {np.flatnonzero(wrong_P)[0]} is not" if len(wrong_P) else "no row is"
        raise DataError(f"{path}: xyz: {what} a point in metres within 500 km; {_REMEDY}")
    vertices_P3 = vertices_P3.astype(np.float64)
    if content.get("aabb_obj_ids") is None:
        return PointCloud(vertices_P3=vertices_P3, ids_K=None, corners_K23=None)
    ids_K, corners_K83 = (
        as_array(content.get(name)) for name in ("aabb_obj_ids", "aabb_corner_xyz")
    )
    if ids_K is None or ids_K.ndim != 1 or ids_K.dtype.kind not in "iu":
        raise DataError(f"{path}: aabb_obj_ids is not a list of integers; {_REMEDY}")
    if corners_K83 is None or corners_K83.shape != (len(ids_K), 8, 3):
        raise DataError(f"{path}: aabb_corner_xyz is not of shape ({len(ids_K)}, 8, 3); {_REMEDY}")
    if len(ids_K) and (ids_K.min() < 0 or (np.diff(ids_K.astype(np.int64)) <= 0).any()):
        raise DataError(f"{path}: aabb_obj_ids do not rise from 0 up; {_REMEDY}")
    if not (np.abs(corners_K83) <= FARTHEST_VERTEX).all():
        raise DataError(f"{path}: aabb_corner_xyz holds a corner beyond 500 km; {_REMEDY}")
    corners_K83 = corners_K83.astype(np.float64)
    corners_K23 = np.stack([corners_K83.min(axis=1), corners_K83.max(axis=1)], axis=1)
    return PointCloud(
        vertices_P3=vertices_P3, ids_K=ids_K.astype(np.int32), corners_K23=corners_K23
    )


def write_voxels(path: Path, out: Path) -> None:
    """Write ``pcd_discrete_0.1.pkl`` as an .npz, of which a job reads its scenes alone.

    Each scene becomes an array (M,3) i32, an aligned vertex divided by 0.1 m and rounded.

    Raises:
        DataError: the file is missing, damaged, or is not a mapping from scene to triples.
    """
    content = load_pickle(path, _VOXEL_REMEDY)
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not a mapping from scene to voxels; {_VOXEL_REMEDY}")
    arrays = {}
    for scene, triples in content.items():
        voxels_M3 = as_array(triples)
        if not isinstance(scene, str) or SCENE_NAME.fullmatch(scene) is None:
            raise DataError(f"{path}: {scene!r:.80} is not a scene name; {_VOXEL_REMEDY}")
        shaped = voxels_M3 is not None and voxels_M3.ndim == 2 and voxels_M3.shape[1] == 3
        if voxels_M3 is None or not shaped or voxels_M3.dtype.kind not in "iu":
            raise DataError(f"{path}: {scene} is not a list of integer triples; {_VOXEL_REMEDY}")
        arrays[scene] = voxels_M3.astype(np.int32)
    with atomic_file(out) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_voxels(path: Path, scene: str) -> np.ndarray | None:
    """Return a scene's voxels, (M,3) i32, from a file of `write_voxels`; None if it has none."""
    with np.load(path, allow_pickle=False) as archive:
        return archive[scene] if scene in archive.files else None
