"""The random teacher: the same signs everywhere, and other ones for each scene, frame and patch."""

import hashlib
from pathlib import Path

import numpy as np

from fixtures.teacher_scenes import payload, write_scene
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import verify_store
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.teacher import TeacherSettings
from threedrs.teachers.weightless import random_signs


def test_the_signs_are_the_bits_of_a_hash() -> None:
    first = hashlib.shake_128(b"3 scene0001_00 7").digest(2)
    bits = [int(bit) for byte in first for bit in f"{byte:08b}"]
    found = random_signs(3, "scene0001_00", 7, 14)
    assert (found.shape, found.dtype) == ((14, 14, 53), np.float16)
    assert found[0, 0, :16].tolist() == [1.0 if bit else -1.0 for bit in bits]


def test_patches_frames_scenes_and_seeds_are_independent() -> None:
    drawn = [(0, "a", 0), (0, "a", 10), (0, "b", 0), (1, "a", 0)]
    rows = np.stack([random_signs(*named, rows=14).reshape(196, 53) for named in drawn])
    rows = rows.reshape(-1, 53).astype(float)
    assert (abs(rows) == 1).all()
    cosines = (rows @ rows.T / 53)[np.triu_indices(len(rows), 1)]
    # Of independent signs the cosine has mean 0 and deviation 1 / sqrt(53) = 0.137.
    assert abs(cosines.mean()) < 0.002
    assert 0.13 < cosines.std() < 0.145
    assert cosines.max() < 0.9


def test_features_do_not_depend_on_the_image(tmp_path: Path) -> None:
    found = []
    for name, number in (("one", 0), ("other", 5)):
        images = [payload(number), payload(number + 1)]
        scene = write_scene(tmp_path / name, 1, images)
        out = tmp_path / name / "train-000.zarr"
        manifest = extract_shard([scene], TeacherSettings(name="random", seed=4), out)
        assert manifest["channels"] == 53
        assert verify_store(out) == []
        found.append(FeatureStore.open(out).features("scene0001_00"))
    np.testing.assert_array_equal(*found)
    expected = [random_signs(4, "scene0001_00", frame, 14) for frame in (0, 7)]
    np.testing.assert_array_equal(found[0], expected)
