"""Verdicts in plain words; the sample of questions; charts that take odd values."""

import pytest

from threedrs.report import figures
from threedrs.report.examples import choose
from threedrs.report.verdict import config_differences, verdicts
from threedrs.tasks.registry import headline_columns

SCANREFER = headline_columns()[:2]


def summary(*compared):
    """A summary of one run against the baseline on ScanRefer's two metrics."""
    values = {"acc@0.25": {"mean": 50.0, "std": None}, "acc@0.5": {"mean": 40.0, "std": None}}
    comparison = {
        column.metric: {"low": None, "high": None, "scenes": 9, **entry}
        for column, entry in zip(SCANREFER, compared, strict=True)
    }
    base = {"name": "baseline", "runs": ["baseline"], "metrics": {"scanrefer": values}}
    run = {"name": "3drs", "runs": ["3drs"], "metrics": {"scanrefer": values}}
    return {
        "comparison": {"level": 0.05, "fewest_scenes": 6},
        "groups": [
            {**base, "comparison": {}},
            {**run, "comparison": {"scanrefer": comparison}},
        ],
    }


def entry(difference, p, p_holm=None, **others):
    return {"difference": difference, "p": p, "p_holm": p_holm, **others}


@pytest.mark.parametrize(
    ("first", "second", "answer", "words"),
    [
        (
            entry(3.0, 0.001, 0.002),
            entry(0.0, 1.0, 1.0),
            "Yes: 3drs is better than baseline on 1 of 2 metrics, worse on none.",
            ["better, clearly more than chance", "no difference"],
        ),
        (
            entry(3.0, 0.04, 0.08),
            entry(-3.0, 0.01, 0.02),
            "Mixed: 3drs is better than baseline on 1 of 2 metrics, worse on 1.",
            ["better, likely more than chance", "worse, clearly more than chance"],
        ),
        (
            entry(-3.0, 0.01, 0.02),
            entry(1.0, 0.4, 0.4),
            "No: 3drs is worse than baseline on 1 of 2 metrics, better on none.",
            ["worse, clearly more than chance", "higher, but may be chance"],
        ),
        (
            entry(-1.0, 0.5, 1.0),
            entry(1.0, 0.4, 0.8),
            "Not shown: 3drs and baseline differ by no more than chance.",
            ["lower, but may be chance", "higher, but may be chance"],
        ),
        (
            entry(9.0, None, scenes=3),
            entry(9.0, None, scenes=1),
            "Cannot be told: too little data to compare 3drs with baseline.",
            [
                "cannot tell: only 3 scenes, 6 are the least",
                "cannot tell: only 1 scene, 6 are the least",
            ],
        ),
    ],
)
def test_the_answer_follows_from_the_numbers(first, second, answer, words):
    (verdict,) = verdicts(summary(first, second), SCANREFER)
    assert verdict.answer == answer
    assert [line.words for line in verdict.lines] == words


def test_the_size_is_told_whatever_the_chance():
    (verdict,) = verdicts(summary(entry(2.0, 0.5), entry(-1.0, 0.5)), SCANREFER)
    assert "higher on 1, lower on 1 and the same on 0 of 2 metrics" in verdict.explanation
    assert "between -1.0 and +2.0 points, +0.5 in the middle (median)" in verdict.explanation


def test_stars():
    compared = summary(entry(3.0, 0.04, 0.08), entry(3.0, 0.01, 0.02))
    (verdict,) = verdicts(compared, SCANREFER)
    assert [line.stars for line in verdict.lines] == ["*", "**"]


def test_config_differences_leave_out_names_and_paths():
    mine = {"run": "a", "teacher": {"name": "vggt", "grid": 14}, "paths": {"out": "a"}, "new": 1}
    other = {"run": "b", "teacher": {"name": "none", "grid": 14}, "paths": {"out": "b"}}
    assert config_differences(mine, other) == [("teacher.name", "vggt", "none"), ("new", 1, None)]


def test_the_sample_takes_outcomes_in_turn():
    outcomes = [("same",)] * 90 + [("better",)] * 2 + [("worse",)]
    chosen = choose(outcomes, 6)
    assert len(chosen) == len(set(chosen)) == 6
    assert chosen == sorted(chosen)
    assert {90, 91, 92} <= set(chosen)
    assert chosen[:3] == [0, 44, 89]
    assert choose(outcomes[:2], 6) == [0, 1]
    assert choose([], 6) == []


def test_figures_take_gaps_dollars_and_markup():
    drawn = figures.bars(
        ["costs $5", "<b>&"], {"a$b": [None, 2.0], "c": [1.0, 0.0]}, 'the "title" <x>'
    )
    assert "costs $5" in drawn
    assert "&lt;b&gt;&amp;" in drawn
    assert 'aria-label="the &quot;title&quot; &lt;x&gt;"' in drawn
    assert "currentColor" in drawn
    assert figures.INK not in drawn
    assert figures.radar(["a", "b", "c"], {"r": [None, None, None]}, "t").startswith("<svg")
    assert figures.curves({"r": [{"step": 1, "text": None}]}, "text", "t") is None
    row = figures.Difference(label="x", value=1.0, low=None, high=None, significant=False)
    assert figures.differences([row], "t").startswith("<svg")
