"""Importing real-format RGB-D data that nobody here made: ICL-NUIM's living room, twelve frames."""

from pathlib import Path

import numpy as np
from PIL import Image

from threedrs.scannet.rgbd import import_rgbd
from threedrs.scannet.sens import SensReader

FOLDER = Path(__file__).resolve().parents[1] / "data" / "livingroom1"
FRAMES = 12


def test_all_frames(tmp_path):
    out = tmp_path / "livingroom1.sens"
    assert import_rgbd(FOLDER, out, intrinsic="525,525,319.5,239.5") == FRAMES

    words = (FOLDER / "trajectory.log").read_text().split()
    blocks = np.array(words, dtype=np.float64).reshape(FRAMES, 3 + 16)
    expected = blocks[:, 3:].reshape(FRAMES, 4, 4).astype(np.float32)

    with SensReader(out) as reader:
        assert len(reader) == FRAMES
        assert reader.valid.all()
        assert np.array_equal(reader.poses, expected)
        header = reader.header
        assert (header.color_width, header.color_height) == (640, 480)
        assert header.intrinsic_depth[:2, :3].tolist() == [[525, 0, 319.5], [0, 525, 239.5]]
        for index in range(FRAMES):
            payload = (FOLDER / "image" / f"{index:05d}.jpg").read_bytes()
            assert reader.color_bytes(index) == payload
            with Image.open(FOLDER / "depth" / f"{index:05d}.png") as image:
                assert np.array_equal(reader.depth(index), np.array(image))
        frame = reader.frame(FRAMES - 1)
        assert frame.color.shape == (480, 640, 3)
        assert frame.depth.max() < 10_000  # millimetres: the room is a few metres wide
