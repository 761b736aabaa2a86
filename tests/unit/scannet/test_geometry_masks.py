"""Which tokens see a box: counted pixels against thresholds, and the packed bits."""

import numpy as np
import pytest

from threedrs.scannet.geometry import frame_masks, pack_masks, unpack_masks

UNIT_BOX = np.array([[0, 0, 0, 1, 1, 1]], dtype=np.float32)


def far_away() -> np.ndarray:
    return np.full((384, 384, 3), 100, dtype=np.float32)


def slow_masks(
    coordinates: np.ndarray, boxes: np.ndarray, valid: np.ndarray, grid: int, patch: int, least: int
) -> np.ndarray:
    """Count the pixels inside, patch by patch, from the specification."""
    masks = np.zeros((len(boxes), grid, grid), dtype=bool)
    for row, (cx, cy, cz, dx, dy, dz) in enumerate(boxes):
        half = np.float32(2)
        lower = [cx - dx / half, cy - dy / half, cz - dz / half]
        upper = [cx + dx / half, cy + dy / half, cz + dz / half]
        inside = valid.copy()
        for axis in range(3):
            inside &= coordinates[..., axis] >= lower[axis]
            inside &= coordinates[..., axis] <= upper[axis]
        for v in range(grid):
            for u in range(grid):
                block = inside[v * patch : (v + 1) * patch, u * patch : (u + 1) * patch]
                masks[row, v, u] = block.sum() >= least
    return masks


@pytest.mark.parametrize("with_validity", [False, True])
def test_against_loops(with_validity: bool) -> None:
    generator = np.random.default_rng(0)
    # A slanted plane with noise, so that patches are partly inside.
    v, u = np.mgrid[:384, :384] / 384
    coordinates = np.stack([4 * u - 2, 4 * v - 2, u + v], axis=-1)
    coordinates = (coordinates + generator.normal(0, 0.05, (384, 384, 3))).astype(np.float32)
    boxes = np.concatenate(
        [generator.uniform([-2, -2, 0], [2, 2, 2], (12, 3)), generator.uniform(0.2, 3, (12, 3))],
        axis=1,
    ).astype(np.float32)
    valid = generator.random((384, 384)) < 0.8
    fine, coarse = frame_masks(coordinates, boxes, valid if with_validity else None)
    used = valid if with_validity else np.ones_like(valid)
    np.testing.assert_array_equal(fine, slow_masks(coordinates, boxes, used, 27, 14, 98))
    np.testing.assert_array_equal(coarse, slow_masks(coordinates, boxes, used, 14, 27, 91))
    assert 0 < fine.mean() < 1
    assert 0 < coarse.mean() < 1


@pytest.mark.parametrize(("pixels", "seen"), [(98, True), (97, False)])
def test_fine_threshold(pixels: int, seen: bool) -> None:
    coordinates = far_away()
    patch = coordinates[14:28, 28:42].reshape(-1, 3)
    patch[:pixels] = 0
    coordinates[14:28, 28:42] = patch.reshape(14, 14, 3)
    fine, _ = frame_masks(coordinates, UNIT_BOX)
    assert bool(fine[0, 1, 2]) is seen
    assert fine.sum() == int(seen)


@pytest.mark.parametrize(("pixels", "seen"), [(91, True), (90, False)])
def test_coarse_threshold(pixels: int, seen: bool) -> None:
    coordinates = far_away()
    patch = coordinates[27:54, 351:378].reshape(-1, 3)
    patch[:pixels] = 0
    coordinates[27:54, 351:378] = patch.reshape(27, 27, 3)
    _, coarse = frame_masks(coordinates, UNIT_BOX)
    assert bool(coarse[0, 1, 13]) is seen
    assert coarse.sum() == int(seen)


def test_both_corners_are_inside_and_the_margin_is_not() -> None:
    for corner, seen in (
        ((-0.5, -0.5, -0.5), True),
        ((0.5, 0.5, 0.5), True),
        ((0.5, 0.5, 0.51), False),
    ):
        coordinates = np.broadcast_to(np.float32(corner), (384, 384, 3))
        fine, coarse = frame_masks(coordinates, UNIT_BOX)
        assert fine.all() == coarse.all() == seen
    margin = far_away()
    margin[378:] = margin[:, 378:] = 0
    fine, coarse = frame_masks(margin, UNIT_BOX)
    assert not fine.any()
    assert not coarse.any()


def test_no_boxes() -> None:
    fine, coarse = frame_masks(far_away(), np.zeros((0, 6), dtype=np.float32))
    assert (fine.shape, coarse.shape) == ((0, 27, 27), (0, 14, 14))


@pytest.mark.parametrize(("grid", "size"), [(27, 92), (14, 25)])
def test_packing_round_trip_and_bit_order(grid: int, size: int) -> None:
    masks = np.random.default_rng(2).random((3, 2, grid, grid)) < 0.5
    packed = pack_masks(masks)
    assert (packed.shape, packed.dtype) == ((3, 2, size), np.uint8)
    np.testing.assert_array_equal(unpack_masks(packed, grid), masks)
    for bit in (0, 1, 9, grid * grid - 1):
        assert bool(packed[1, 0, bit // 8] >> (7 - bit % 8) & 1) == masks[1, 0].ravel()[bit]
    assert pack_masks(masks[:0]).shape == (0, 2, size)
    assert unpack_masks(pack_masks(masks[:0]), grid).shape == (0, 2, grid, grid)
