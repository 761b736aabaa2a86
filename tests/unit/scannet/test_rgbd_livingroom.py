"""Importing real-format RGB-D data that nobody here made: ICL-NUIM's living room."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.real_data import shipped_and_whole
from fixtures.sens_files import frame_of
from threedrs.scannet.rgbd_frames import import_rgbd
from threedrs.scannet.sens import SensReader


@pytest.mark.parametrize(("folder", "frames"), shipped_and_whole("livingroom1", 12, 211))
def test_all_frames(tmp_path: Path, folder: Path, frames: int) -> None:
    out = tmp_path / "livingroom1.sens"
    assert import_rgbd(folder, out, intrinsic="525,525,319.5,239.5") == frames

    words = (folder / "trajectory.log").read_text().split()
    blocks = np.array(words, dtype=np.float64).reshape(frames, 3 + 16)
    expected = blocks[:, 3:].reshape(frames, 4, 4).astype(np.float32)

    with SensReader(out) as reader:
        assert len(reader) == frames
        assert reader.valid.all()
        assert np.array_equal(reader.poses, expected)
        header = reader.header
        assert (header.color_width, header.color_height) == (640, 480)
        assert header.intrinsic_depth[:2, :3].tolist() == [[525, 0, 319.5], [0, 525, 239.5]]
        for index in range(frames):
            payload = (folder / "image" / f"{index:05d}.jpg").read_bytes()
            assert reader.color_bytes(index) == payload
            with Image.open(folder / "depth" / f"{index:05d}.png") as image:
                assert np.array_equal(reader.depth(index), np.array(image))
        frame = frame_of(reader, frames - 1)
        assert frame.color.shape == (480, 640, 3)
        assert frame.depth.max() < 10_000  # millimetres: the room is a few metres wide
