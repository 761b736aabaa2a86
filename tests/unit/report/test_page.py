"""The report page: what it says, that it is safe and whole, and how it behaves in a browser."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess

import pytest

from fixtures.html_tags import Tags
from fixtures.html_tags import results as results
from fixtures.html_tags import text as text
from fixtures.report_files import HOSTILE, SETTINGS, SPLITS, page_of, summarise, write_results
from threedrs.errors import DataError, StoreError
from threedrs.report import charts
from threedrs.report.page import SCRIPTS, build_report, code_commit
from threedrs.report.results import Results
from threedrs.visualization.templates import anchor, page_script

pytestmark = pytest.mark.slow

QUESTIONS = 18 * len(SPLITS)


def test_a_git_that_takes_too_long_says_no_commit(monkeypatch):
    def slow(*command, **_):
        raise subprocess.TimeoutExpired(command, 600.0)

    monkeypatch.setattr("threedrs.report.page.shutil.which", lambda program: program)
    monkeypatch.setattr("threedrs.report.page.run_text", slow)
    assert code_commit() is None


def test_it_answers_the_question_first(text):
    # 3drs: 2 of 3 right in every scene, baseline 1 of 3; CIDEr is 0 where all references agree.
    answer = "One training each: the method cannot be told from the seed."
    assert f'<p class="statement">{answer}</p>' in text
    order = [text.index(part) for part in (answer, 'id="scores"', 'id="verdict"', 'id="published"')]
    assert order == sorted(order)
    assert "This is the demo." in text
    assert "Scores in the demo's rooms cannot be compared with them" in text
    assert "<td>+33.3</td>".replace("<td>", '<td class="even">') in text
    assert "higher on 4, lower on 0 and the same on 1 of 5 metrics" in text
    assert "<code>teacher.name</code> is vggt-tiny instead of none" in text
    assert "differ in 2 keys<" in text
    assert " instead of none. Only 3drs has <code>teacher.grid</code> (14). All" in text
    assert "Only baseline has" not in text
    assert "one training: may be the seed" in text
    # Without a test and an interval nothing is said of them.
    assert "Holm" not in text
    assert "The interval holds both" not in text
    assert "95&nbsp;% intervals are of one metric" not in text


def test_the_workflow_is_run_again_as_it_was_run(text):
    # On another configuration the bare command would make the demo over its results.
    words = " ".join(text.split())
    assert "<code>snakemake --cores all all</code> and your own <code>--configfile</code>" in words


def test_with_too_few_rooms_no_training_is_asked_for(text):
    assert 'aria-label="Runs to add"' not in text
    assert "6 rooms are too few for a verdict on 5 metrics" in text


def test_scores_of_one_room_have_no_interval(tmp_path):
    results = write_results(tmp_path)
    for path in results.glob("eval/*/*/metrics.json"):
        content = json.loads(path.read_text())
        for estimate in content["metrics"].values():
            estimate |= {"low": None, "high": None}
        path.write_text(json.dumps(content))
    summarise(results)
    build_report(results, SETTINGS)
    page = (results / "report" / "index.html").read_text()
    assert "<td>66.67</td><td>–</td>" in page
    assert "left out on request" in page


def test_every_part_is_there(text):
    parts = (
        "verdict",
        "scores",
        "published",
        "types",
        "training",
        "data",
        "questions",
        "costs",
        "provenance",
    )
    assert set(parts) <= set(Tags(text).ids)
    for wanted in (
        "3DRS (LLaVA-Video)",
        "86.1",
        "3D supervision loss",
        "costs $5 $",
        "EM, on the way",
    ):
        assert wanted in text
    assert "vggt-tiny sees" in text
    assert "grounding loss" not in text  # no run has one


def test_markup_in_questions_stays_text(text):
    assert HOSTILE not in text
    tags = Tags(text).tags
    # The page's script, and the curves and the questions, which no browser runs.
    assert [attributes for tag, attributes in tags if tag == "script"] == [
        {"type": "text/plain", "id": "curves-data"},
        {"type": "text/plain", "id": "questions-data"},
        {},
    ]
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)


def test_nothing_is_loaded_from_outside(text):
    for tag, attributes in Tags(text).tags:
        if tag in ("img", "script", "link", "iframe", "source"):
            address = attributes.get("src") or attributes.get("href") or "data:"
            assert address.startswith("data:"), (tag, attributes)
    assert "url(" not in re.sub(r"url\(#", "", text)
    script = text[text.index("<script>") + len("<script>") : text.rindex("</script>")]
    assert page_script("threedrs.report", SCRIPTS) == (script, _allowed(text))
    digest = hashlib.sha256(script.encode()).digest()
    assert _allowed(text) == f"sha256-{base64.b64encode(digest).decode()}"


def _allowed(text):
    return re.search(r"script-src (?:&#39;|')(sha256-[^&']*)", text).group(1)


def test_links_lead_somewhere_and_ids_are_unique(text):
    tags = Tags(text)
    assert len(tags.ids) == len(set(tags.ids))
    targets = {
        address[1:]
        for tag, attributes in tags.tags
        if tag == "a" and (address := attributes["href"] or "").startswith("#")
    }
    assert targets <= set(tags.ids)
    assert {anchor(run, name) for run in SETTINGS.runs for name in SPLITS} <= targets


def test_pictures_and_charts_speak_to_screen_readers(text):
    for tag, attributes in Tags(text).tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]


def test_anchors_of_different_names_differ():
    assert anchor("a-b", "c") != anchor("a", "b-c")
    assert anchor("a.b") != anchor("a_b")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", anchor("ru n.1", "x"))


def test_leftovers_of_earlier_configurations_change_nothing(results, text, tmp_path):
    for part in ("scenes", "eval", "train", "benchmarks", "instructions", "features"):
        shutil.copytree(results / part, tmp_path / part)
    (tmp_path / "report").mkdir()
    shutil.copy(results / "report" / "summary.json", tmp_path / "report")
    features = tmp_path / "features"
    (features / "pointmap" / "train-000.zarr" / "scene0000_00").mkdir(parents=True)  # interrupted
    finished = features / "vggt" / "train-000.zarr"
    shutil.copytree(features / "vggt-tiny" / "train-000.zarr", finished)
    for file in finished.glob("scene*/zarr.json"):  # of frames that the scenes no longer have
        content = json.loads(file.read_text())
        content["attributes"]["frame_ids"] = [8]
        file.write_text(json.dumps(content))
    mixes = tmp_path / "instructions" / "mixes"
    shutil.copy(mixes / "full.summary.json", mixes / "half.summary.json")
    (mixes / "cut.summary.json").write_text("{")
    build_report(tmp_path, SETTINGS)
    assert (tmp_path / "report" / "index.html").read_text() == text


def _shown(summary):
    summary["groups"][1]["comparison"]["scanrefer"]["acc@0.25"]["p_holm"] = 0.01


def test_only_a_column_with_a_difference_shown_has_heat_and_a_best(results, text, tmp_path):
    # One training a side: whichever is higher, another seed may turn it.
    assert "--heat:" not in text
    assert 'class="best"' not in text
    assert "No column is coloured, as none shows a difference to baseline" in text
    page = page_of(results, tmp_path, _shown)
    # Two of three right against one of three: the one is the best, with the largest heat.
    assert page.count('class="heat" style="--heat:1.00"') == 1
    assert page.count('style="--heat:0.00"') == 1
    assert 'class="best">66.7</a>' in page
    assert "a column without colour shows no difference to baseline" in page


def test_grey_rows_stand_below_and_lead_to_their_files(results, tmp_path):
    def change(summary):
        summary["trivial"] = [
            {
                "name": "chance",
                "how": "A box drawn at random.",
                "metrics": {"scanrefer": {"acc@0.25": {"mean": -0.01}}},
            }
        ]
        summary["sources"]["trivial_answers"] = "0123abc"

    page = page_of(results, tmp_path, change)
    table = page[page.index('<table class="scores"') :]
    table = table[: table.index("</table>")]
    assert '<tbody class="trivial" data-fixed> <tr><th scope="row">' in table
    # No number is a zero with a sign, and no metric without one a number.
    assert '<td><a href="#grey-rows">0.0</a></td><td>–</td>' in table
    assert 'title="A box drawn at random."' in table
    origin = page[page.index('id="grey-rows"') :]
    assert "<code>results/trivial_answers.json</code></th><td><code>0123abc</code>" in origin


def test_numbers_are_out_of_all_questions_whichever_run_answers(results, tmp_path):
    def change(summary):
        for name, n in (("3drs", 0), ("baseline", 18)):
            metrics = summary["runs"][name]["benchmarks"]["scanrefer"]
            metrics |= {"n": n, "left_out": {"questions": 12, "scenes": []}}

    assert "scanrefer 12 of 30." in page_of(results, tmp_path, change)


def test_radars_end_at_the_highest_value_of_the_page(results, monkeypatch):
    drawn = []
    monkeypatch.setattr(charts.figures, "radar", lambda axes, *_: drawn.append(axes) or "")
    charts.radars(
        Results(folder=results, runs=SETTINGS.runs, benchmarks=SETTINGS.benchmarks, mix_names=())
    )
    # ScanRefer's is ours, of two right in three. CIDEr's stands among the secondary sources.
    assert [round(tip, 1) for tip in drawn[0].values()][:3] == [66.7, 66.7, 99.2]


@pytest.mark.parametrize("unknown", [{"teachers": ("pointmap",)}, {"mixes": ("half",)}])
def test_what_is_configured_must_be_there(results, unknown):
    before = (results / "report" / "index.html").read_bytes()
    with pytest.raises((StoreError, DataError), match=r"pointmap|half"):
        build_report(results, dataclasses.replace(SETTINGS, **unknown))
    assert (results / "report" / "index.html").read_bytes() == before


def test_published_rows_stand_in_their_groups(results):
    page = (results / "report" / "index.html").read_text()
    assert "<small>the setting of" not in page  # tiny models repeat no published row
    assert "<b>3drs</b> (llava-video of size tiny, teacher vggt-tiny, loss l2, layer last)" in page
    for group in ("its Tables 4, 12 and 13", "From secondary sources: not read in the papers"):
        assert group in page
    # Scan2Cap's ROUGE-L, beside ours in the details.
    assert "3DRS (LLaVA-Video), published" in page
    assert "<td>62.3</td>" in page


def test_a_published_row_says_which_run_repeats_it(results, tmp_path):
    for part in results.iterdir():
        if part.name not in ("report", "train"):
            (tmp_path / part.name).symlink_to(part)
    shutil.copytree(results / "train", tmp_path / "train")
    path = tmp_path / "train" / "baseline" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model": {**config["model"], "size": "7b"}}))
    summarise(tmp_path)
    build_report(tmp_path, SETTINGS)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "its baseline (Video-3D LLM) <small>the setting of baseline</small>" in page


def test_questions_left_out_are_said(results, tmp_path):
    for part in results.iterdir():
        if part.name not in ("report", "eval", "instructions"):
            (tmp_path / part.name).symlink_to(part)
    for part in ("eval", "instructions"):
        shutil.copytree(results / part, tmp_path / part)
    rows = [{"scene": "scene0088_00", "reason": "it is truncated", "questions": 2}]
    for path in tmp_path.glob("eval/*/scanrefer/metrics.json"):
        metrics = json.loads(path.read_text())
        metrics["left_out"] = {"questions": 2, "scenes": rows}
        path.write_text(json.dumps(metrics))
    records = tmp_path / "instructions" / "scanrefer_val.jsonl"
    first = json.loads(records.read_text().splitlines()[0])
    unasked = [{**first, "id": f"unasked{n}", "scene": "scene0088_00"} for n in range(2)]
    with records.open("a") as stream:
        stream.writelines(f"{json.dumps(row)}\n" for row in unasked)
    mix = tmp_path / "instructions" / "mixes" / "full.summary.json"
    facts = {"records": 9, "scenes": [{"scene": "scene0087_00", "reason": "", "records": 9}]}
    mix.write_text(json.dumps({**json.loads(mix.read_text()), "left_out": facts}))
    summarise(tmp_path)
    build_report(tmp_path, SETTINGS)
    page = " ".join((tmp_path / "report" / "index.html").read_text().split())
    assert "Some questions are excluded" in page
    assert "scanrefer 2 of 20. Scores with all questions may differ." in page
    excluded = 'of 6 rooms, 2 more <a href="../scenes/report.html#left-out">excluded</a>'
    assert f">18 questions</a> {excluded}" in page
    assert "9 samples of 1 rooms whose scans cannot be used" in page
    table = (tmp_path / "report" / "summary.md").read_text()
    assert "scanrefer 18 (2 more left out: scans that cannot be used), scan2cap 18" in table


def test_an_answer_that_is_gone_is_named(results, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(results, folder, symlinks=True)
    file = folder / "eval/3drs/sqa3d/predictions.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:1]))
    with pytest.raises(
        DataError, match=r"predictions\.jsonl: has no answer to question .*; predict"
    ):
        build_report(folder, SETTINGS)


def test_a_missing_file_is_named(results, tmp_path):
    with pytest.raises(DataError, match=r"summary\.json: cannot be read"):
        build_report(tmp_path, SETTINGS)
