"""Verdicts in plain words; charts that take odd values."""

import base64
import io
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import center_of_mass, find_objects, label

from fixtures.compared_settings import CHECKPOINT, SCANREFER, entry, summary
from threedrs.report import charts, figures
from threedrs.report.next_runs import NextRuns
from threedrs.report.scores import origin_of
from threedrs.report.verdict import config_differences, statement, verdicts
from threedrs.report.verdict_line import plain as said
from threedrs.tasks.registry import headline_columns
from threedrs.visualization.templates import page_environment


def evidence(low, high, scenes=40, seeds="3 and 3"):
    return (
        f"95 % interval {low:+.1f} to {high:+.1f}, {seeds} seeds, {scenes} rooms, 1,600 questions"
    )


AFTER = "after the correction for 2 tests"
SIX_ROOMS = {"scenes": 6, "smallest_p": 2 / 64}


@pytest.mark.parametrize(
    ("first", "second", "answer", "words"),
    [
        (
            entry(5.0, 0.001, 0.002),
            entry(0.0, 1.0, 1.0, missed=3.0),
            "Yes: 3drs is better than baseline on 1 of 2 metrics, ScanRefer Acc@0.25 by 5.0 points "
            f"({evidence(1, 9)}). On the other one no difference is shown.",
            [
                f"better ({evidence(1, 9)})",
                f"no difference shown ({evidence(-4, 4)}); {AFTER}, one of less than about "
                "3.0 points is easily missed",
            ],
        ),
        (
            entry(5.0, 0.01, 0.02),
            entry(-5.0, 0.01, 0.02),
            "Mixed: 3drs is better than baseline on 1 of 2 metrics, ScanRefer Acc@0.25 by 5.0 "
            f"points ({evidence(1, 9)}). It is worse on 1, ScanRefer Acc@0.5 by 5.0 points "
            f"({evidence(-9, -1)}).",
            [f"better ({evidence(1, 9)})", f"worse ({evidence(-9, -1)})"],
        ),
        (
            entry(-5.0, 0.01, 0.02),
            entry(5.0, 0.03, 0.06),
            "No: 3drs is worse than baseline on 1 of 2 metrics, ScanRefer Acc@0.25 by 5.0 points "
            f"({evidence(-9, -1)}). On the other one no difference is shown.",
            [
                f"worse ({evidence(-9, -1)})",
                f"not shown after the correction for 2 tests ({evidence(1, 9)}); {AFTER}, "
                "one of less than about 7.2 points is easily missed",
            ],
        ),
        (
            entry(-1.0, 0.5, 1.0),
            entry(1.0, 0.4, 0.8, missed=12.0),
            "No difference between 3drs and baseline is shown. After the correction for 2 tests, a "
            "true one of less than about 7.2 to 12.0 points is easily missed, which is an estimate "
            "from 3 seeds.",
            [
                f"no difference shown ({evidence(-5, 3)}); {AFTER}, one of less than about "
                "7.2 points is easily missed",
                f"no difference shown ({evidence(-3, 5)}); {AFTER}, one of less than about "
                "12.0 points is easily missed",
            ],
        ),
        (
            entry(9.0, 2 / 64, 4 / 64, **SIX_ROOMS),
            entry(1.0, 0.5, 0.5, **SIX_ROOMS),
            "Cannot be told: 6 rooms are too few to compare 3drs with baseline on 2 metrics.",
            [
                f"cannot be told with so few rooms ({evidence(5, 13, 6)})",
                f"cannot be told with so few rooms ({evidence(-3, 5, 6)})",
            ],
        ),
    ],
)
def test_from_three_seeds_the_answer_follows_from_the_numbers(first, second, answer, words):
    (verdict,) = verdicts(summary(first, second), SCANREFER)
    assert said(verdict.answer) == answer
    assert [said(line.words) for line in verdict.lines] == words
    # The count in a sentence leads to the questions that it counts.
    link = 'data-filter="benchmark=scanrefer&amp;a=baseline&amp;b=3drs">1,600 questions</a>'
    assert all(link in line.words for line in verdict.lines)
    assert (link in verdict.answer) == ("questions" in answer)


def test_names_in_an_answer_stay_text():
    made = summary(entry(5.0, 0.001, 0.002), entry(0.0, 1.0, 1.0))
    made["groups"][1]["name"] = "<b>"
    (verdict,) = verdicts(made, SCANREFER)
    assert verdict.answer.startswith("Yes: &lt;b&gt; is better than baseline on 1 of 2 metrics")
    assert said(verdict.answer).startswith("Yes: <b> is better than baseline on 1 of 2 metrics")
    # Nothing is taken out of an answer that has no links.
    assert (
        said("No difference between <b> and baseline") == "No difference between <b> and baseline"
    )


@pytest.mark.parametrize(
    ("seeds", "answer"),
    [
        ((1, 1), "One training each: the method cannot be told from the seed."),
        ((1, 5), "One training of 3drs: the method cannot be told from the seed."),
        ((5, 1), "One training of baseline: the method cannot be told from the seed."),
    ],
)
def test_one_training_is_never_a_yes(seeds, answer):
    unknown = {"low": None, "high": None, "missed": None, "seeds_share": None}
    made = summary(entry(40.0, **unknown), entry(40.0, **unknown), seeds=seeds, tests=0)
    (verdict,) = verdicts(made, SCANREFER)
    assert (verdict.answer, verdict.tone) == (answer, "even")
    assert {line.words for line in verdict.lines} == {"one training: may be the seed"}
    assert {line.tone for line in verdict.lines} == {"even"}
    assert "higher on 2, lower on 0" in verdict.explanation


def test_two_seeds_are_a_hint():
    (verdict,) = verdicts(summary(entry(5.0), entry(-1.0), seeds=(2, 3), tests=0), SCANREFER)
    assert verdict.answer == (
        "At most a hint, with two seeds: 3drs may be better than baseline on 1 of 2 metrics, where "
        "the interval lies beside zero."
    )
    assert [said(line.words) for line in verdict.lines] == [
        f"a hint that it is higher ({evidence(1, 9, seeds='2 and 3')})",
        f"may be chance ({evidence(-5, 3, seeds='2 and 3')})",
    ]
    assert {line.tone for line in verdict.lines} == {"even"}


@pytest.mark.parametrize(
    ("differences", "answer"),
    [
        ((5.0, -5.0), "may be better than baseline on 1 of 2 metrics and worse on 1, where"),
        ((-5.0, -5.0), "3drs may be worse than baseline on 2 of 2 metrics, where"),
        ((1.0, -1.0), "Not even a hint, with two seeds: no interval of a difference between 3drs"),
    ],
)
def test_two_seeds_say_nothing_of_a_side_on_which_no_interval_lies(differences, answer):
    made = summary(*map(entry, differences), seeds=(2, 2), tests=0)
    assert answer in verdicts(made, SCANREFER)[0].answer


@pytest.mark.parametrize("seeds", [2, 3])
def test_one_room_tells_nothing(seeds):
    unknown = {"low": None, "high": None, "missed": None, "scenes": 1, "smallest_p": 1.0}
    unknown["seeds_share"] = None
    made = summary(entry(9.0, **unknown), entry(9.0, **unknown), seeds=(seeds, seeds), tests=0)
    (verdict,) = verdicts(made, SCANREFER)
    assert verdict.answer.startswith("Cannot be told: 1 room is too few to compare")
    assert verdict.lines[0].words == "cannot be told: all questions are of one room"
    assert "interval" not in verdict.explanation


def test_several_settings_are_one_statement():
    made = summary(entry(5.0, 0.001, 0.002), entry(0.0, 1.0, 1.0))
    (better,) = verdicts(made, SCANREFER)
    (single,) = verdicts(summary(entry(5.0), entry(0.0), seeds=(1, 1), tests=0), SCANREFER)
    told = partial(statement, baseline="baseline", settings=made["comparison"])
    assert told([single]) == [single.answer]
    assert told([single, replace(single, name="other")]) == [single.answer]
    assert told([]) == ["There is only one setting, baseline: nothing to compare."]
    both = [better, replace(single, name="x"), replace(single, name="y")]
    assert told(both) == [
        "Better than baseline on at least one metric and worse on none: 3drs.",
        "One training on a side, so the method cannot be told from the seed: x and y.",
        "This rests on 1 to 3 seeds a side and 40 rooms.",
        f"{AFTER.capitalize()}, a true difference of less than about 7.2 points is easily missed.",
    ]


@pytest.mark.parametrize("name", ["YesNet", "No difference", "Mixed"])
def test_the_kind_of_an_answer_does_not_hang_on_names(name):
    made = summary(entry(40.0), entry(1.0), seeds=(1, 1), tests=0)
    made["groups"][1] |= {"name": name, "runs": [name]}
    made["runs"][name] = CHECKPOINT
    (verdict,) = verdicts(made, SCANREFER)
    other = replace(verdict, name="other", answer="other words")
    assert statement([verdict, other], "baseline", made["comparison"]) == [
        f"Cannot be told from baseline: {name} and other."
    ]


def test_cider_is_not_among_the_percent_that_are_missed():
    columns = [column for column in headline_columns() if column.benchmark == "scan2cap"]
    made = summary(entry(-1.0, 0.5, 1.0, missed=182.84), entry(1.0, 0.4, 0.8, missed=12.0))
    for group in made["groups"]:
        values = group["metrics"]["scanrefer"].values()
        metrics = dict(zip(("cider", "bleu4"), values, strict=True))
        group["metrics"] = {"scan2cap": metrics}
        compared = group["comparison"].get("scanrefer", {}).values()
        group["comparison"] = {"scan2cap": dict(zip(("cider", "bleu4"), compared, strict=False))}
    (verdict,) = verdicts(made, columns)
    assert "less than about 12.0 points (182.8 of CIDEr) is easily missed" in verdict.answer
    (verdict,) = verdicts(made, columns[:1])
    assert "less than about 182.8 points of CIDEr is easily missed" in verdict.answer


def test_the_size_is_told_whatever_the_chance():
    made = summary(entry(2.0, 0.5), entry(-1.0, 0.5, seeds_share=0.2))
    (verdict,) = verdicts(made, SCANREFER)
    assert "higher on 1, lower on 1 and the same on 0 of 2 metrics" in verdict.explanation
    assert verdict.explanation.startswith("As measured, which may be chance: higher on 1")
    assert "The seeds make the larger part of the interval on 1 of 2 metrics" in verdict.explanation


def test_runs_that_agree_everywhere_have_nothing_to_miss():
    made = summary(*[entry(0.0, 1.0, 1.0, missed=0.0)] * 2)
    (verdict,) = verdicts(made, SCANREFER)
    assert verdict.answer == "No difference between 3drs and baseline is shown."
    assert "the same on 2 of 2 metrics" in verdict.explanation
    made = summary(entry(0.0, 1.0, 1.0, missed=0.0), entry(1.0, 0.5, 1.0))
    words = verdicts(made, SCANREFER)[0].lines[0].words
    assert said(words) == f"no difference shown ({evidence(-4, 4)})"


NOTHING = {"most_frequent": "", "count": 9, "of": 9}
SAME = {"most_frequent": "no", "count": 6, "of": 9}


@pytest.mark.parametrize("seeds", [(1, 1), (2, 3), (3, 3)])
@pytest.mark.parametrize(
    ("alike", "reason"),
    [
        ({"baseline": NOTHING, "3drs": NOTHING}, "both hardly answer"),
        ({"baseline": SAME, "3drs": NOTHING}, "both give most questions one answer"),
        # A box is taken all the same, and not always the same one.
        ({"baseline": {"no_object_first": 9, "of": 9}, "3drs": SAME}, None),
        ({"baseline": NOTHING}, None),
        ({}, None),
    ],
)
def test_settings_that_are_equal_by_saying_nothing_are_not_as_good(alike, reason, seeds):
    made = summary(*[entry(0.0, 1.0, 1.0, missed=0.0)] * 2, seeds=seeds)
    for group in made["groups"]:
        for run in group["runs"]:
            counts = alike.get(group["name"])
            made["runs"][run] = {"benchmarks": {"scanrefer": {"alike": counts}}}
    (verdict,) = verdicts(made, SCANREFER)
    names = "(ScanRefer Acc@0.25, ScanRefer Acc@0.5)"
    told = f"Cannot be told: 3drs and baseline are equal, but {reason} {names}."
    assert (verdict.answer == told) == bool(reason)
    parity = f"Equal values are no sign of parity where {reason} {names}."
    assert (parity in verdict.explanation) == bool(reason)
    if reason:
        assert (verdict.kind, verdict.tone) == ("untold", "even")
        assert {line.words for line in verdict.lines} == {f"nothing to compare: {reason}"}


def test_two_zeros_are_no_parity():
    made = summary(*[entry(0.0, 1.0, 1.0, missed=0.0)] * 2)
    for group in made["groups"]:
        group["metrics"] = {"scanrefer": {"acc@0.25": {"mean": 0.0}, "acc@0.5": {"mean": 40.0}}}
    (verdict,) = verdicts(made, SCANREFER)
    assert verdict.lines[0].words == "nothing to compare: both score 0"
    assert said(verdict.lines[1].words) == f"no difference shown ({evidence(-4, 4)})"
    assert "no sign of parity where both score 0 (ScanRefer Acc@0.25)." in verdict.explanation
    # The other metric is compared.
    assert verdict.answer == "No difference between 3drs and baseline is shown."


def test_one_part_of_all_intervals_is_said_once():
    made = summary(entry(2.0, 0.5), entry(-1.0, 0.5))
    (verdict,) = verdicts(made, SCANREFER)
    assert verdict.explanation.endswith("The seeds make the larger part of the interval.")


@pytest.mark.parametrize("side", ["baseline", "3drs"])
def test_a_model_as_it_is_has_no_seeds(side):
    made = summary(entry(40.0, 0.001, 0.002), entry(1.0), seeds=(1, 1), tests=0)
    made["runs"][side] = CHECKPOINT
    (verdict,) = verdicts(made, SCANREFER)
    assert verdict.answer == f"{side} is one model as it is: seeds cannot be compared."
    assert {(line.words, line.tone) for line in verdict.lines} == {
        ("a model as it is: no seeds", "even")
    }
    made["runs"] = dict.fromkeys(made["runs"], CHECKPOINT)
    (verdict,) = verdicts(made, SCANREFER)
    assert verdict.answer == "3drs and baseline are models as they are: seeds cannot be compared."


def test_what_the_swaps_do_not_show_is_said():
    (verdict,) = verdicts(summary(entry(5.0, 0.2, 0.2), entry(5.0, 0.2, 0.2)), SCANREFER)
    assert said(verdict.lines[0].words).startswith(
        "not shown against swaps of the settings within rooms, or of trainings that do not vary "
        f"({evidence(1, 9)}); {AFTER}, one of"
    )


@pytest.mark.parametrize(
    ("seeds", "tests", "wanted"),
    [(1, 0, []), (2, 0, ["not corrected"]), (3, 2, ["not corrected", "Holm"])],
)
def test_the_page_explains_only_what_it_shows(seeds, tests, wanted):
    ends = {"low": None, "high": None} if seeds == 1 else {}
    made = summary(entry(5.0, **ends), entry(-1.0, **ends), seeds=(seeds, seeds), tests=tests)
    template = page_environment("threedrs.report").get_template("verdict.html.j2")
    text = template.render(
        settings={"baseline": "baseline", "demo": False},
        summary=made,
        verdicts=verdicts(made, SCANREFER),
        verdict_reaches=[charts.reaches_of(verdict) for verdict in verdicts(made, SCANREFER)],
        room_strips=[[]],
        run_colours=dict.fromkeys(made["runs"], "#000000"),
        next_runs=NextRuns(),
        counts=[],
        config_differences={},
        origin_of=origin_of,
    )
    assert [word for word in ("not corrected", "Holm") if word in text] == wanted
    assert ("The interval holds both" in text) == (seeds > 1)


def test_config_differences_leave_out_names_and_paths():
    mine = {"run": "a", "teacher": {"name": "vggt", "grid": 14}, "paths": {"out": "a"}, "new": 1}
    other = {"run": "b", "teacher": {"name": "none", "grid": 14}, "paths": {"out": "b"}}
    assert config_differences(mine, other) == [("new", 1, None), ("teacher.name", "vggt", "none")]


def test_a_radar_by_hand():
    axes = {"up": 2.0, "right": 4.0, "down": 1.0, "left": 1.0}
    drawn = figures.radar(axes, {"r": [1.0, 4.0, None, 0.5], "x": [2.0] * 4}, {"r": "#000000"}, "t")
    assert [(round(axis.x), round(axis.y)) for axis in drawn.axes] == [
        (0, -1),
        (1, 0),
        (0, 1),
        (-1, 0),
    ]
    first, second = drawn.lines
    # Half of an axis that ends at 2, all of one that ends at 4; the missing value leaves a gap.
    numbers = [float(found) for found in re.findall(r"-?[\d.]+", first.path)]
    assert numbers == [0, -50, 100, 0, -50, 0, 0, -50]
    assert first.area.split()[2] == "0.0,0.0"
    assert (first.colour, second.colour) == ("#000000", figures.GREYS[0])
    template = page_environment("threedrs.report").from_string(
        "{% from 'macros.html.j2' import radar %}{{ radar(chart) }}"
    )
    hostile = figures.radar({"<b>": 1.0}, {"<i>": [1.0]}, {}, '"t" <x>')
    text = template.render(chart=hostile)
    assert "<b>" not in text
    assert "<i>" not in text
    assert 'aria-label="&#34;t&#34; &lt;x&gt;"' in text


def test_a_strip_has_a_dot_for_each_room_in_its_place():
    runs = {"a": np.array([-10.0, 0.0, 10.0]), "b": np.array([5.0])}
    packed = figures.room_strip(runs, 10.0, {"a": "#ff0000", "b": "#0000ff"})
    content = base64.b64decode(packed.removeprefix("data:image/png;base64,"))
    seen = np.asarray(Image.open(io.BytesIO(content)))
    assert seen.shape == (2 * figures.LANE, figures.STRIP_WIDTH, 4)
    dots, count = label(seen[..., 3])
    assert count == 4
    # Shown at half its size, a dot has to be seen: 3 pixels across were taken for dirt.
    assert all(columns.stop - columns.start >= 2 * 6 for _, columns in find_objects(dots))
    centres = sorted(column for _, column in center_of_mass(dots > 0, dots, range(1, 5)))
    middle, half = figures.STRIP_WIDTH / 2, figures.STRIP_WIDTH / 2 - figures.DOT
    assert centres == pytest.approx([middle + half * x for x in (-1, 0, 0.5, 1)], abs=1)
    # Each run has its lane.
    assert not seen[figures.LANE :, :, 0].any()
    assert not seen[: figures.LANE, :, 2].any()


def test_differences_of_a_scale_reach_as_far_as_its_largest():
    ends = {"low": None, "high": None}
    (verdict,) = verdicts(summary(entry(4.0, low=-6.0, high=8.0), entry(-2.0, **ends)), SCANREFER)
    assert charts.reaches_of(verdict) == [[-0.75, 0.5, 1.0], [-0.25, -0.25, -0.25]]
    cider = replace(verdict.lines[1], column=replace(SCANREFER[1], metric="cider"))
    apart = replace(verdict, lines=(verdict.lines[0], cider))
    assert charts.reaches_of(apart) == [[-0.75, 0.5, 1.0], [-1.0, -1.0, -1.0]]
    assert charts.reaches_of(replace(verdict, lines=())) == []
