"""axe-core finds nothing on the pages, in light and dark, wide and narrow, open and closed.

axe-core (tests/fixtures/axe) is under the Mozilla Public License 2.0, which stands beside it. It is
part of the tests alone, not of the package.
"""

import json
from pathlib import Path

import pytest

from fixtures.html_tags import results as results  # a fixture
from fixtures.report_browser import ROWS, wait_until
from fixtures.report_browser import browser as browser  # a fixture
from fixtures.report_browser import page as page  # a fixture
from fixtures.scene_rows import write_rows
from threedrs.scenes.report import write_scene_report

pytestmark = pytest.mark.slow
AXE = (Path(__file__).parents[2] / "fixtures" / "axe" / "axe.min.js").read_text(encoding="utf-8")


def violations(page):
    """What axe-core finds: rule, and the first element that breaks it."""
    page.value(f"{AXE}; 0")
    ask = "axe.run().then((found) => JSON.stringify(found.violations.map("
    ask += "(one) => [one.id, one.nodes[0].target.join(), one.nodes[0].failureSummary])))"
    said = page.send("Runtime.evaluate", expression=ask, awaitPromise=True, returnByValue=True)
    return json.loads(said["result"]["value"])


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_the_report(page, width, dark):
    page.look(width=width, dark=dark)
    page.value("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    wait_until(page, "document.querySelector('.chart polyline')")
    assert violations(page) == []
    page.value(f"{ROWS}[0].querySelector('a').click()")
    wait_until(page, "document.querySelector('#card[open] .turn figcaption')?.textContent")
    assert violations(page) == []


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_the_scene_report(page, tmp_path, width, dark):
    part = write_rows(tmp_path / "scenes" / "report" / "val-000", 12)
    write_scene_report([part], tmp_path / "scenes" / "report.html")
    page.look(width=width, dark=dark)
    page.open((tmp_path / "scenes" / "report.html").as_uri())
    assert violations(page) == []
