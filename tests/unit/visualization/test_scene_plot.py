"""A scene's image, and its contact sheets."""

from PIL import Image

from fixtures.drawn_scenes import GREEN, RED, pixels_of
from fixtures.drawn_scenes import one_frame as one_frame  # a fixture
from fixtures.report_files import scene_contents
from threedrs.io.images import save_image
from threedrs.scenes.store import SceneStore, write_scene_store
from threedrs.visualization.scene_plot import (
    BOX_COLOURS,
    IMAGE_SIZE,
    contact_sheet,
    plot_scene,
)


def test_a_contact_sheet_has_rows_gaps_and_captions():
    tiles = [Image.new("RGB", (10, 6), colour) for colour in (GREEN, RED, "#0000ff")]
    sheet = contact_sheet(tiles, columns=2, captions=["a", "b", "c"], gap=4)
    assert sheet.size == (10 + 4 + 10, 2 * (6 + 14) + 4)
    assert sheet.getpixel((14, 0)) == (255, 0, 0)
    assert sheet.getpixel((0, 24)) == (0, 0, 255)
    assert sheet.getpixel((14, 30)) == (255, 255, 255)


def test_a_scenes_image_shows_both_box_sets(tmp_path):
    contents = scene_contents("scene0000_00")
    write_scene_store(tmp_path / "scene0000_00.zarr", contents)
    plotted = plot_scene(SceneStore.open(tmp_path / "scene0000_00.zarr"), "title")
    for name in ("a.jpg", "a.png"):
        save_image(plotted, tmp_path / name)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", IMAGE_SIZE)
    with Image.open(tmp_path / "a.png") as image:
        for name, colour in BOX_COLOURS.items():
            drawn_pixels = pixels_of(image, colour)
            assert bool(len(drawn_pixels)) == bool(len(contents.boxes[name].boxes))
