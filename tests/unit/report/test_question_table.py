"""All questions in a browser: filter, links, cards, frames and rooms."""

import re
import shutil

import numpy as np
import pytest

from fixtures.html_tags import results as results  # a fixture
from fixtures.report_browser import QUESTIONS, ROWS, SHOWN, set_filter, wait_until
from fixtures.report_browser import browser as browser  # a fixture
from fixtures.report_browser import page as page  # a fixture
from fixtures.report_files import INTRINSIC, SPLITS, TRUE, WRONG, page_of
from threedrs.visualization.box_overlay import corners, project

pytestmark = pytest.mark.slow


def test_the_filter_works(page):
    set_filter(page, "benchmark", "sqa3d", 18)
    # Of every room's three questions 3drs has two right and the baseline one of these.
    for outcome, questions in (("better", 6), ("same", 12), ("worse", 0), ("both", 6), ("", 18)):
        set_filter(page, "outcome", outcome, questions)
    for right, questions in (("some", 6), ("none", 6), ("right:3drs", 12), ("wrong:3drs", 6)):
        set_filter(page, "right", right, questions)
    assert page.value(f"{ROWS}.every((row) => row.innerText.includes('wrong'))")
    set_filter(page, "right", "", 18)
    set_filter(page, "text", "SCENE0000", 3)
    assert "benchmark=sqa3d" in page.value("location.hash")
    page.value("document.querySelector('#filter button').click()")
    wait_until(page, f"{SHOWN}.startsWith('{QUESTIONS} of')")
    set_filter(page, "room", "scene0003_00", 3 * len(SPLITS))
    set_filter(page, "type", "unique", 3)
    assert page.complaints == []


def test_only_the_rows_in_view_are_drawn(page):
    assert 10 < page.value(f"{ROWS}.length") < 40 < QUESTIONS
    page.value("document.querySelector('.virtual').scrollTop = 1e6")
    wait_until(page, f"{ROWS}.at(-1).dataset.place === '{QUESTIONS - 1}'")
    assert page.value(f"{ROWS}.length") < 40
    # The row that is drawn last is the one that is seen last.
    gap = "document.querySelector('.virtual').getBoundingClientRect().bottom"
    gap += f" - {ROWS}.at(-1).getBoundingClientRect().bottom"
    assert 0 <= page.value(gap) < 30


def test_two_runs_stand_side_by_side(page):
    set_filter(page, "benchmark", "sqa3d", 18)
    heads = "['a', 'b'].map((run) => document.getElementById(`head-${run}`).textContent).join()"
    assert page.value(heads) == "baseline,3drs"
    page.value("document.querySelector('#filter [name=a]').value = '3drs'")
    set_filter(page, "b", "baseline", 18)
    wait_until(page, f"{heads} === '3drs,baseline'")
    set_filter(page, "outcome", "worse", 6)


def test_every_count_leads_to_its_questions(page, results, tmp_path):
    """Counts in sentences, cards, tables, notices and provenance, each of them clicked."""

    def change(summary):
        # Intervals, so that sentences say how many questions they rest on, and a shown difference.
        summary["comparison"]["tests"] = 5
        for group in summary["groups"]:
            for metrics in group["comparison"].values():
                for one in metrics.values():
                    one |= {"seeds": [3, 3], "low": 1.0, "high": 9.0, "seeds_share": 0.5}
                    one |= {"p": 0.001, "p_holm": 0.005, "missed": 2.0, "smallest_p": 1e-4}
            # Two more seeds of each, by name alone.
            group["runs"] = group["runs"] * 3
            for metrics in group["metrics"].values():
                for mean in metrics.values():
                    mean["std"] = 1.0
        for run, entry in summary["runs"].items():
            entry["benchmarks"]["scanrefer"]["limit"] = {"questions": 18, "of": 30}
            entry["benchmarks"]["sqa3d"]["alike"] = {
                "most_frequent": "the brown chair" if run == "3drs" else WRONG,
                "count": 12,
                "of": 18,
            }

    page_of(results, tmp_path, change)
    page.open((tmp_path / "report" / "index.html").as_uri())
    wait_until(page, "document.getElementById('questions').dataset.ready")
    links = "[...document.querySelectorAll('a[data-filter]')]"
    texts = page.value(f"{links}.map((a) => a.textContent)")
    parts = page.value(f"{links}.map((a) => a.closest('section, header').id)")
    # 12 of 18 in a notice, 18 asked in another, 18 in the statement, the card's head and rows.
    assert texts.count("12 of 18 questions") == 4  # of two runs on two benchmarks
    assert "scanrefer 18" in texts
    assert set(parts) == {"", "scores", "verdict", "types", "provenance"}
    assert texts.count("18 questions") > 2 * len(SPLITS) + 5
    for place, text in enumerate(texts):
        page.value(f"{links}[{place}].click()")
        count = re.search(r"\d+(?= of|$| questions)", text).group()
        wait_until(page, f"{SHOWN} === '{count} of {QUESTIONS} questions'")
        page.value("document.querySelector('#filter button').click()")
        wait_until(page, f"{SHOWN} === '{QUESTIONS} of {QUESTIONS} questions'")
    page.value(f"{links}.at(-1).click()")
    wait_until(page, "document.activeElement.id === 'questions-title'")


def test_a_count_leads_to_its_questions_every_time(page):
    link = "document.querySelector('a[data-filter*=\"benchmark=sqa3d\"][data-filter$=worse]')"
    none = f"{SHOWN} === '0 of {QUESTIONS} questions'"
    there = "document.activeElement.id === 'questions-title'"
    page.value(f"{link}.click()")
    wait_until(page, none)
    wait_until(page, there)
    page.value("document.querySelector('#scores a').focus()")
    page.value(f"{link}.click()")
    wait_until(page, there)
    # All are shown again, and the address says so.
    page.value("document.querySelector('#filter button').click()")
    wait_until(page, f"{SHOWN}.startsWith('{QUESTIONS} of')")
    wait_until(page, "!location.hash.includes('worse')")
    page.value(f"{link}.click()")
    wait_until(page, none)


def open_question(page, place):
    set_filter(page, "benchmark", "scanrefer", 18)
    page.value(f"{ROWS}[{place}].querySelector('a').click()")
    wait_until(page, "document.querySelector('#card[open] .frame svg path')")


def test_a_question_opens_with_its_frames_and_room(page):
    open_question(page, 1)
    card = page.value("document.getElementById('card').innerText")
    assert "Which chair?" in card
    assert "Identify the object" not in card
    assert "1 box, IoU 1.00" in card
    assert "frame 7" in card
    labels = "[...document.querySelectorAll('#card .frame text')].map((text) => text.textContent)"
    assert set(page.value(labels)) == {"true", "3drs", "baseline"}
    alt = page.value("document.querySelector('#card img').alt")
    assert alt.startswith("Frame 7 of scene0000_00 with boxes: true, 3drs")
    assert page.value("document.activeElement.id") == "card-title"
    # Its address opens it again, and closing leads back to its row.
    address = page.value("location.href")
    assert "#q=" in address
    page.value("document.querySelector('#card [name=next]').click()")
    wait_until(page, "location.hash.endsWith('_2')")
    page.value("document.querySelector('#card [name=close]').click()")
    wait_until(page, "document.activeElement.closest('tr')?.dataset.place === '2'")
    page.open("about:blank")
    page.open(address)
    wait_until(page, "document.querySelector('#card[open] .frame')")
    assert page.complaints == []


def test_boxes_are_drawn_where_python_draws_them(page):
    open_question(page, 0)
    path = "[...document.querySelectorAll('#card .frame path')].at(-1).getAttribute('d')"
    drawn = np.array(re.findall(r"-?[\d.]+", page.value(path)), dtype=float).reshape(-1, 2)
    # The camera of the fixture stands at the origin and looks along z.
    wanted = project(corners(TRUE), INTRINSIC).round(1)
    assert len(drawn) == 24
    assert {tuple(point) for point in drawn} == {tuple(point) for point in wanted}


def test_a_room_turns_by_key(page):
    open_question(page, 0)
    wait_until(page, "document.querySelector('#card canvas')?.getAttribute('aria-label')")
    page.value("document.querySelector('#card canvas').focus()")
    before = page.value("structuredClone(threedrs.viewerPose())")
    for key, code in (("ArrowRight", 39), ("ArrowUp", 38), ("+", 187)):
        page.press(key, code)
    after = page.value("structuredClone(threedrs.viewerPose())")
    assert after["yaw"] < before["yaw"]
    assert after["pitch"] < before["pitch"]
    assert after["distance"] < before["distance"]
    page.press("0", 48)
    assert page.value("structuredClone(threedrs.viewerPose())") == before
    # With Shift the room moves, and what is looked at with it.
    page.press("ArrowRight", 39, shift=True)
    moved = page.value("structuredClone(threedrs.viewerPose())")
    assert moved["target"] != before["target"]
    assert {**moved, "target": 0} == {**before, "target": 0}


def test_a_room_keeps_its_image_from_frame_to_frame(page):
    open_question(page, 0)
    page.value(
        "void (window.sizes = [], window.ImageData = class extends ImageData {"
        "constructor(...size) { super(...size); sizes.push(size.join()); } })"
    )
    page.value("document.querySelector('#card canvas').focus()")
    frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    for _ in range(5):
        page.press("ArrowRight", 39)
        page.send("Runtime.evaluate", expression=frame, awaitPromise=True)
    page.value("void (document.querySelector('#card canvas').style.width = '123px')")
    wait_until(page, "sizes.at(-1)?.startsWith('123,')")
    sizes = page.value("sizes")
    assert len(sizes) == len(set(sizes))


def test_a_room_turns_zooms_and_moves_by_touch(page):
    open_question(page, 0)
    wait_until(page, "document.querySelector('#card canvas')?.getAttribute('aria-label')")
    page.value("document.querySelector('#card canvas').scrollIntoView({block: 'center'})")
    pose = "structuredClone(threedrs.viewerPose())"
    before = page.value(pose)
    x, y = page.value(
        "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
        "(document.querySelector('#card canvas').getBoundingClientRect())"
    )
    scrolled = page.value("document.getElementById('card').scrollTop")
    # One finger to the right and down turns the room.
    page.touch([(x, y)], [(x + 20, y + 10)], [(x + 60, y + 30)])
    turned = page.value(pose)
    assert turned["yaw"] < before["yaw"]
    assert turned["pitch"] > before["pitch"]
    assert (turned["distance"], turned["target"]) == (before["distance"], before["target"])
    # Two fingers that part to twice their distance bring the room to half its distance.
    page.touch([(x - 40, y), (x + 40, y)], [(x - 60, y), (x + 60, y)], [(x - 80, y), (x + 80, y)])
    near = page.value(pose)
    assert near["distance"] == pytest.approx(turned["distance"] / 2)
    # Each finger moves on its own, which leaves some centimetres.
    assert near["target"] == pytest.approx(turned["target"], abs=0.05)
    assert (near["yaw"], near["pitch"]) == (turned["yaw"], turned["pitch"])
    # Two fingers side by side move it, and neither turn nor zoom it in the end.
    page.touch([(x - 40, y), (x + 40, y)], [(x - 40, y + 50), (x + 40, y + 50)])
    moved = page.value(pose)
    assert moved["target"] != near["target"]
    assert moved["distance"] == pytest.approx(near["distance"], rel=0.01)
    assert (moved["yaw"], moved["pitch"]) == (near["yaw"], near["pitch"])
    # The page itself stays where it is, and a lifted finger no longer counts.
    assert page.value("document.getElementById('card').scrollTop") == scrolled
    page.touch([(x, y)], [(x + 30, y)])
    assert page.value(pose)["distance"] == moved["distance"]


def test_a_room_that_has_come_is_waited_for_no_more(page):
    open_question(page, 0)
    page.value("window.unpacked = 0; window.atob = () => { unpacked += 1; return ''; }")
    # What still waited would unpack this, and keep the room for ever.
    page.value("threedrsRoom('scene0000_00', '')")
    assert page.value("unpacked") == 0


def test_a_room_has_its_points_boxes_and_cameras(page):
    open_question(page, 0)
    page.value("document.querySelector('#card canvas').focus()")
    colours = (
        "(() => { const c = document.querySelector('#card canvas'); "
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
        "const found = new Set(); "
        "for (let i = 0; i < d.length; i += 4) found.add(d.slice(i, i + 3).join()); "
        "return [...found].join(' '); })()"
    )
    wall, true, camera = "144,144,144", "76,217,100", "255,214,10"
    wait_until(page, f"{colours}.includes('{wall}')")
    # Box and camera lie below the wall, and show where the room is seen from there.
    assert camera not in page.value(colours)
    for _ in range(15):
        page.press("ArrowUp", 38)
    for _ in range(5):
        page.press("-", 189)
    wait_until(page, f"['{wall}', '{true}', '{camera}'].every((one) => {colours}.includes(one))")
    page.value(
        "(() => { const slider = document.querySelector('.turn input'); slider.min = 0; "
        "slider.value = 0; slider.dispatchEvent(new Event('input')); })()"
    )
    wait_until(page, f"!{colours}.includes('{wall}')")
    assert true in page.value(colours)


def test_a_room_that_is_not_there_is_said(page, results, tmp_path):
    shutil.copy(results / "report" / "index.html", tmp_path)
    page.open((tmp_path / "index.html").as_uri() + "#q=sqa3d%3Asqa3d_scene0000_00_1")
    said = "document.querySelector('#card[open] .room')?.innerText"
    wait_until(page, f"{said}?.includes('cannot be shown')")
    assert "rooms/scene0000_00.js is not beside this page" in page.value(said)


def test_the_keyboard_moves_from_question_to_question(page):
    page.value("document.querySelector('#filter select').focus()")
    page.press("s", 83)
    assert page.value("document.querySelector('[name=benchmark]').value") == "scanrefer"
    wait_until(page, f"{SHOWN}.startsWith('18 of')")
    page.value(f"{ROWS}[0].querySelector('a').focus()")
    page.press("ArrowDown", 40)
    assert page.value("document.activeElement.closest('tr').dataset.place") == "1"
    page.press("End", 35)
    assert page.value("document.activeElement.closest('tr').dataset.place") == "17"
