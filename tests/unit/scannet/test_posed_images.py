"""Reading the posed_images layout back: the same frames as the .sens it was exported from."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.posed_images import folder as folder
from fixtures.posed_images import scan as scan
from fixtures.sens_files import depth_image
from threedrs.errors import DataError
from threedrs.scannet.posed_images import PosedImagesReader
from threedrs.scannet.sens import SensReader


def test_an_export_reads_as_its_scan(scan: Path, folder: Path) -> None:
    with SensReader(scan) as sens, PosedImagesReader(folder) as reader:
        assert reader.frame_ids.tolist() == [0, 3, 6]
        assert len(reader) == 3
        np.testing.assert_array_equal(reader.poses, sens.poses[::3])
        np.testing.assert_array_equal(reader.valid, [True, False, True])
        for name in ("intrinsic_color", "intrinsic_depth"):
            np.testing.assert_array_equal(getattr(reader.header, name), getattr(sens.header, name))
        for name in ("color_width", "color_height", "depth_width", "depth_height"):
            assert getattr(reader.header, name) == getattr(sens.header, name)
        for place, frame in enumerate(reader.frame_ids):
            assert reader.color_bytes(place) == sens.color_bytes(frame)
            assert reader.depth_bytes(place) == (folder / f"{frame:05d}.png").read_bytes()
            np.testing.assert_array_equal(reader.color(place), sens.color(frame))
            depth = reader.depth_millimetres(place)
            assert depth.dtype == np.uint16
            np.testing.assert_array_equal(depth, sens.depth_millimetres(frame))
        with pytest.raises(IndexError):
            reader.color(3)


def test_opening_decodes_no_image_and_ignores_other_files(folder: Path) -> None:
    whole = (folder / "00003.jpg").read_bytes()
    (folder / "00003.jpg").write_bytes(whole[:-40])
    (folder / "00003.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not a frame")
    (folder / "thumbnail.jpg").write_bytes(b"")
    with PosedImagesReader(folder) as reader:
        assert reader.frame_ids.tolist() == [0, 3, 6]
        with pytest.raises(DataError, match=r"00003\.jpg: .*damaged.* export the scan again"):
            reader.color(1)
        with pytest.raises(DataError, match=r"00003\.png: is not a readable PNG"):
            reader.depth_millimetres(1)


def test_header_bytes_tell_cameras_apart(folder: Path) -> None:
    before = PosedImagesReader(folder).header_bytes
    assert PosedImagesReader(folder).header_bytes == before
    np.savetxt(folder / "depth_intrinsic.txt", np.diag([5.5, 5.5, 1, 1]))
    assert PosedImagesReader(folder).header_bytes != before


@pytest.mark.parametrize("name", ["00003.jpg", "00003.png", "00003.txt", "00000.txt"])
def test_an_incomplete_frame_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError) as caught:
        PosedImagesReader(folder)
    frame = name.partition(".")[0]
    assert f"{folder}: {name} is missing, frame {frame} is incomplete" in str(caught.value)
    assert "delete the frame's other files" in str(caught.value)


@pytest.mark.parametrize("name", ["intrinsic.txt", "depth_intrinsic.txt"])
def test_a_missing_intrinsic_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"/{name}: cannot be read"):
        PosedImagesReader(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("00003.txt", "1 0 0 0", r"00003\.txt: holds 4 numbers, a 4x4 matrix has 16"),
        ("00003.txt", "1 0 x", r"00003\.txt: could not convert"),
        ("intrinsic.txt", "nan " * 16, "scene0000_00: intrinsic_color holds a non-finite value"),
        ("depth_intrinsic.txt", "1e60 " * 16, "intrinsic_depth holds a non-finite value"),
    ],
)
def test_malformed_texts(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        PosedImagesReader(folder)


def test_images_of_another_kind_or_size(folder: Path) -> None:
    reader = PosedImagesReader(folder)
    Image.new("RGB", (20, 12)).save(folder / "00003.jpg")
    with pytest.raises(DataError, match=r"00003\.jpg: .*20x12 pixels, not 16x12"):
        reader.color(1)
    Image.fromarray(depth_image(0, size=(4, 3))).save(folder / "00003.png")
    with pytest.raises(DataError, match=r"00003\.png: is 4x3 pixels, the scan's depth images 8x6"):
        reader.depth_millimetres(1)
    Image.new("L", (8, 6)).save(folder / "00003.png")
    with pytest.raises(DataError, match=r"00003\.png: is not a 16-bit grey PNG \(Pillow mode L\)"):
        reader.depth_millimetres(1)
    (folder / "00003.png").write_bytes(bytes(3_000_000))
    with pytest.raises(DataError, match=r"00003\.png: 3000000 bytes are absurd"):
        reader.depth_millimetres(1)
    (folder / "00003.png").unlink()
    with pytest.raises(DataError, match=r"00003\.png: cannot be read \(No such file"):
        reader.depth_millimetres(1)
    (folder / "00003.png").touch()
    (folder / "00000.jpg").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"00000\.jpg: is not a readable JPEG"):
        PosedImagesReader(folder)


def test_a_damaged_png_is_no_picture(folder: Path) -> None:
    reader, file = PosedImagesReader(folder), folder / "00003.png"
    whole = file.read_bytes()
    for position in range(8, len(whole) - 4, 7):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(DataError, match=r"00003\.png: "):
            reader.depth_millimetres(1)


def test_no_folder_no_frame_and_a_frame_twice(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: cannot be listed"):
        PosedImagesReader(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no frame \(00000\.jpg"):
        PosedImagesReader(tmp_path / "empty")
    for kind in ("jpg", "png", "txt"):
        shutil.copy(folder / f"00003.{kind}", folder / f"000003.{kind}")
    with pytest.raises(DataError, match="are the same frame; delete one"):
        PosedImagesReader(folder)
