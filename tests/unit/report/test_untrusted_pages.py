"""Texts made to harm in whatever the pages show: they stay texts, in the file and in a browser."""

import html
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.chromium import ChromiumUnavailable, chromium
from fixtures.html_tags import Tags
from fixtures.report_files import (
    HOSTILE,
    RUNS,
    SCENES,
    SETTINGS,
    SPLITS,
    score,
    summarise,
    write_results,
)
from threedrs.errors import DataError
from threedrs.report.page import build_report
from threedrs.scenes.report import ROWS_FILE, write_scene_report

pytestmark = pytest.mark.slow

SCRIPT = "<!--</script></title></style></pre>]]>" + HOSTILE + "{{ 7 * 7 }}javascript:\u2028'\"><"


def edit(file: Path, change: Callable[[Any], object]) -> None:
    rows = (
        [json.loads(line) for line in file.read_text().splitlines()]
        if file.suffix == ".jsonl"
        else None
    )
    if rows is None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        return
    for row in rows:
        change(row)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def hostile_kinds(results: Path) -> None:
    """Give every question of SQA3D a hostile type, id and answer, and score it again."""

    def change(row: dict[str, Any]) -> None:
        row |= {"question_type": SCRIPT, "id": f"{row['id']}{SCRIPT}"}
        if row.get("prediction"):
            row["prediction"] = SCRIPT

    edit(results / "instructions/sqa3d_test.jsonl", change)
    for run in RUNS:
        place = results / "eval" / run / "sqa3d"
        edit(place / "predictions.jsonl", change)
        score(place, "sqa3d", run)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder in which every text that can be is hostile, with its report."""
    results = write_results(tmp_path_factory.mktemp("hostile"))
    hostile_kinds(results)
    for run in RUNS:
        train = results / "train" / run
        edit(train / "config.json", lambda config: config["model"].update(name=SCRIPT))
        edit(train / "train.json", lambda summary: summary.update(device=SCRIPT))
    edit(results / "train/3drs/config.json", lambda config: config["teacher"].update(name=SCRIPT))
    mix = results / "instructions/mixes"

    def mixed(summary: dict[str, Any]) -> None:
        summary["balance"] = SCRIPT
        for part in (summary, summary["before"]):
            part["question_types"] = {"sqa3d": {SCRIPT: 4}}
            part["answers"] = {SCRIPT: 4}

    edit(mix / "full.summary.json", mixed)
    (results / "benchmarks/<img src=x onerror=alert(1)>").mkdir()
    shutil.copy(
        results / "benchmarks/train/3drs.tsv", results / "benchmarks/<img src=x onerror=alert(1)>"
    )
    summarise(results)
    build_report(results, replace(SETTINGS, title=SCRIPT))
    part = results / "scenes/facts/val-000"
    part.mkdir(parents=True)
    row = {"scene": SCENES[0], "split": SCRIPT, "source": SCRIPT, "strategy": SCRIPT}
    row |= {"frame_ids": [0], "frames": 1, "different_frames": 1, "coverage": None, "voxels": None}
    left_out = [{"scene": SCENES[1], "split": "val", "reason": SCRIPT, "remedy": SCRIPT}]
    rows = [row | {"boxes": {"gt": 0, "pred": 0}, "notes": [SCRIPT]}]
    content = {"format_version": 1, "scenes": rows, "left_out": left_out}
    (part / ROWS_FILE).write_text(json.dumps(content))
    write_scene_report([part], results / "scenes/report.html")
    return results


PAGES = {"report/index.html": 3, "scenes/report.html": 1}


@pytest.mark.parametrize(("page", "scripts"), PAGES.items())
def test_no_text_becomes_markup(results: Path, page: str, scripts: int) -> None:
    text = (results / page).read_text()
    tags = Tags(text).tags
    assert sum(tag == "script" for tag, _ in tags) == scripts
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("href", "src"):
            assert not (attributes.get(name) or "").lower().startswith("javascript:")
        if tag == "img":
            assert attributes["src"] != "x"
    assert HOSTILE not in text
    assert html.escape(HOSTILE).replace("&#x27;", "&#39;") in text
    assert "{{ 7 * 7 }}" in text  # a text is no template either


def test_a_scene_name_of_a_prediction_opens_no_file(results: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(results, tmp_path / "results")
    records = copy / "instructions/scanrefer_val.jsonl"
    edit(records, lambda row: row.update(scene="../../../etc"))
    with pytest.raises(DataError, match=r"line 1: scene: '\.\./\.\./\.\./etc' is not a scene name"):
        build_report(copy, SETTINGS)
    assert set(SPLITS) == {"scanrefer", "scan2cap", "sqa3d"}


def test_nothing_runs_in_a_browser(results: Path, tmp_path: Path) -> None:
    try:
        with chromium(tmp_path / "browser") as page:
            for name in PAGES:
                page.open((results / name).as_uri())
                # What HOSTILE would set, and what an alert would leave behind.
                assert page.value("document.title") != "owned"
                assert page.value("document.querySelectorAll('img[src=x], [onerror]').length") == 0
                assert not [said for said in page.complaints if said == "x"]
                assert page.value("document.scripts.length") == PAGES[name]
    except ChromiumUnavailable as error:
        pytest.skip(f"no Chromium: {error}")
