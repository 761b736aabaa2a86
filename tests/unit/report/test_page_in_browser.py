"""The report page in a browser: policy, tables, jumps, keyboard, sizes."""

import re

import pytest

from fixtures.html_tags import results as results  # a fixture
from fixtures.report_browser import QUESTIONS, SHOWN, wait_until
from fixtures.report_browser import browser as browser  # a fixture
from fixtures.report_browser import page as page  # a fixture
from fixtures.report_files import page_of
from threedrs.visualization.templates import anchor

pytestmark = pytest.mark.slow


def test_it_loads_without_complaints(page):
    assert page.value("document.title") == "A test"
    assert page.value(SHOWN) == f"{QUESTIONS} of {QUESTIONS} questions"
    broken = "[...document.images].filter((image) => image.complete && !image.naturalWidth).length"
    assert page.value(broken) == 0
    assert page.complaints == []


def test_the_policy_stops_other_scripts(page):
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"x=1\">')")
    page.value(
        "const other = document.createElement('script'); other.text = 'window.y = 1';"
        "document.body.append(other)"
    )
    assert page.value("window.y === undefined")
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


def test_curves_zoom_by_key_and_the_legend_lets_a_run_stand_out(page):
    wait_until(page, "document.querySelector('.chart polyline.smooth')")
    count = "document.querySelectorAll('.chart')[0].querySelectorAll('polyline').length"
    assert page.value(count) == 4  # raw and smoothed, of two runs
    ticks = (
        "[...document.querySelector('.chart').querySelectorAll('text')].map((t) => t.textContent)"
    )
    before = page.value(ticks)
    page.value("document.querySelector('.chart > svg').focus()")
    page.press("+", 187)
    assert page.value(ticks) != before
    page.press("0", 48)
    assert page.value(ticks) == before
    faint = "getComputedStyle(document.querySelector('.smooth[data-run=baseline]')).opacity"
    assert page.value(faint) == "1"
    page.value("document.querySelector('#legend [data-of=\"3drs\"]').click()")
    assert page.value(faint) == "0.12"
    lines = "[...document.querySelectorAll('#published [data-run=baseline]')]"
    assert page.value(f"{lines}.length") > 0
    assert page.value(f"{lines}.every((line) => getComputedStyle(line).opacity === '0.12')")
    page.value("document.querySelector('#legend [data-of=\"3drs\"]').click()")
    assert page.value(faint) == "1"


def test_twelve_settings_and_the_grey_rows_fit_one_screen(page, results, tmp_path):
    def change(summary):
        first, second = summary["groups"]
        summary["groups"] = [first, *({**second, "name": f"setting-{n}"} for n in range(11))]
        means = {name: second["metrics"][name] for name in summary["benchmarks"]}
        summary["trivial"] = [
            {"name": f"answers without looking {n}", "how": "", "metrics": means} for n in range(3)
        ]

    page_of(results, tmp_path, change)
    page.look(width=1400, height=900)
    page.open((tmp_path / "report" / "index.html").as_uri())
    box = "document.querySelector('#scores table').getBoundingClientRect()"
    assert page.value("document.querySelectorAll('#scores tbody tr').length") == 15
    assert page.value(f"{box}.bottom") <= 900
    assert page.value(f"{box}.right") <= 1400
    # The whole statement stands above: the same of eleven settings is said once.
    assert page.value("document.querySelectorAll('header .statement, header .further').length") == 1


def test_no_column_leaves_the_paper(page):
    # A4 on its side within its margins, at the 96 pixels an inch of print.
    page.look(width=round((297 - 18) / 25.4 * 96))
    page.send("Emulation.setEmulatedMedia", media="print")
    too_wide = "[...document.querySelectorAll('table')].filter((table) => table.checkVisibility()"
    too_wide += " && table.getBoundingClientRect().right > window.innerWidth + 1).length"
    page.value("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.value("document.querySelectorAll('table').length") > 5
    assert page.value(too_wide) == 0
    page.send("Emulation.setEmulatedMedia", media="")


def test_columns_sort_and_keep_the_grey_rows_below(page):
    names = "[...document.querySelectorAll('#scores tbody:not([data-fixed]) th')]"
    names += ".map((head) => head.textContent.trim().split(/\\s/)[0]).join()"
    column = "document.querySelectorAll('#scores .sorter')[2].click()"
    assert page.value(names) == "baseline,3drs"
    page.value(column)
    assert page.value(names) == "3drs,baseline"
    heads = "[...document.querySelectorAll('#scores thead th')].map((h) => h.ariaSort).join()"
    assert page.value(heads).split(",")[2] == "descending"
    page.value(column)
    assert page.value(names) == "baseline,3drs"
    by_name = "document.querySelectorAll('#scores .sorter')[0].click()"
    page.value(by_name)
    assert page.value(names) == "3drs,baseline"
    # A name is sorted as one, also where it starts with a digit.
    page.value(by_name)
    assert page.value(names) == "baseline,3drs"


def test_tables_can_be_taken_along(page):
    # The text that a button would save is what its Blob is made of.
    page.value("window.saved = []; window.Blob = function (parts) { saved.push(parts.join('')); };")
    page.value("URL.createObjectURL = () => '#'; URL.revokeObjectURL = () => {};")
    page.value("document.querySelectorAll('#scores .downloads button').forEach((b) => b.click())")
    comma, mark, tex = page.value("saved")
    assert comma.splitlines()[0].startswith("Setting,Seeds,ScanRefer Acc@0.25,")
    assert comma.splitlines()[1].startswith("baseline,1,33.3 ")
    assert comma.splitlines()[2].startswith("3drs,1,66.7 ")
    assert mark.splitlines()[1].startswith("| --- | ---: |")
    assert "\\begin{tabular}{lrrrrrr}" in tex
    assert tex.count("\\\\") == 3


def test_numbers_by_type_are_taken_along_beside_their_intervals(page):
    page.value("window.saved = []; window.Blob = function (parts) { saved.push(parts.join('')); };")
    page.value("URL.createObjectURL = () => '#'; URL.revokeObjectURL = () => {};")
    page.value("document.querySelector('#types .downloads button').click()")
    assert re.search(r"66\.7 \d+\.\d–\d+\.\d", page.value("saved[0]"))


def test_a_score_opens_its_origin(page):
    target = anchor("3drs", "sqa3d")
    page.value(f"document.querySelector('a[href=\"#{target}\"]').click()")
    page.send(
        "Runtime.evaluate",
        expression="new Promise((done) => setTimeout(done, 100))",
        awaitPromise=True,
    )
    assert page.value(f"document.getElementById('{target}').checkVisibility()")


def test_the_keyboard_reaches_the_parts(page):
    page.press("Tab", 9)
    assert page.value("document.activeElement.textContent") == "Skip to the results"
    reached = set()
    for _ in range(60):
        page.press("Tab", 9)
        reached.add(page.value("document.activeElement.closest('[id]')?.id ?? ''"))
    assert {"verdict", "scores"} <= reached


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_window_in_light_and_dark(page, width, dark):
    page.look(width=width, dark=dark)
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
    ground, ink = page.value(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in (ground, ink)]
    assert (light[0] < 0.2 and light[1] > 0.8) if dark else (light[0] > 0.8 and light[1] < 0.2)
    # Charts keep their natural size: none is blown up to the page's width.
    widest = page.value(
        "Math.max(...[...document.querySelectorAll('figure svg')].map((svg) => svg.clientWidth))"
    )
    assert widest <= min(640, width)


def test_it_can_be_read_without_its_script(page, results, tmp_path):
    text = (results / "report" / "index.html").read_text()
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    page.open(bare.as_uri())
    assert page.value("document.getElementById('filter').hidden")
    assert "66.7" in page.value("document.querySelector('#scores table').innerText")
