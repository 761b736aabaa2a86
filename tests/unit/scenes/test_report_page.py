"""The scene report's page: its size at ScanNet's, its filter, its images."""

import pytest

from fixtures.report_browser import browser as browser  # a fixture
from fixtures.report_browser import wait_until
from fixtures.scene_rows import write_rows
from threedrs.scenes.report import write_scene_report

pytestmark = pytest.mark.slow
SHOWN = "document.getElementById('shown').textContent"


@pytest.fixture
def page(browser, tmp_path):
    part = write_rows(tmp_path / "scenes" / "report" / "val-000", 60)
    write_scene_report([part], tmp_path / "scenes" / "report.html")
    browser.complaints.clear()
    browser.look(width=1280)
    browser.open((tmp_path / "scenes" / "report.html").as_uri())
    return browser


def test_filter_and_histogram_leave_the_scenes_that_fit(page):
    assert page.value(SHOWN) == "60 of 60 scenes"
    page.value("document.querySelector('[name=split]').value = 'val'")
    page.value("document.querySelector('[name=noted]').click()")
    # Every fourth scene has a note, and these are of the other split.
    assert page.value(SHOWN) == "0 of 60 scenes"
    page.value("document.querySelector('#filter button').click()")
    wait_until(page, f"{SHOWN} === '60 of 60 scenes'")
    bars = "[...document.querySelectorAll('.histogram button')]"
    counts = page.value(f"{bars}.map((bar) => Number(bar.querySelector('.count').textContent))")
    assert sum(counts) == 40  # two of three scenes have a mesh
    for place, count in enumerate(counts):
        page.value(f"{bars}[{place}].click()")
        assert page.value(SHOWN) == f"{count} of 60 scenes"
        shown = "[...document.querySelectorAll('.scene')].filter((part) => !part.hidden).length"
        assert page.value(shown) == count


def test_images_load_as_one_scrolls(page):
    loaded = "[...document.images].filter((image) => image.complete && image.naturalWidth).length"
    assert page.value(loaded) < 30
    page.value("document.getElementById('scene0059_00').scrollIntoView()")
    wait_until(page, "document.querySelector('#scene0059_00 img').naturalWidth === 585")


def test_all_of_scannet_is_one_quick_page(tmp_path):
    part = write_rows(tmp_path / "scenes" / "report" / "train-000", 12)
    content = (part / "scenes.json").read_text()
    parts = []
    for number in range(127):
        copy = part.with_name(f"train-{number + 1:03d}")
        copy.mkdir()
        (copy / "scenes.json").write_text(content.replace("scene00", f"scene{number + 1:03d}"))
        parts.append(copy)
    page = tmp_path / "scenes" / "report.html"
    write_scene_report(parts[:126], page)
    assert page.read_text().count('<section class="scene"') == 1512
    assert page.stat().st_size < 5e6
