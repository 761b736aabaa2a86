"""What to run next: more seeds, more rooms, or the seeds of what was seen."""

import pytest
import yaml

from fixtures.compared_settings import CHECKPOINT, SCANREFER, entry, summary
from threedrs.report.next_runs import NextRuns, next_runs
from threedrs.report.verdict import verdicts


def seeds_to_add(made):
    return next_runs(made, verdicts(made, SCANREFER)).lines


def test_runs_to_add_are_a_configuration():
    made = summary(entry(1.0), entry(1.0), seeds=(1, 2))
    assert seeds_to_add(made) == (
        "runs:\n"
        "  baseline-seed42: {extends: baseline, train: {seed: 42}}\n"
        "  3drs-seed41: {extends: 3drs, train: {seed: 41}}\n"
        "  3drs-seed42: {extends: 3drs, train: {seed: 42}}"
    )
    made["runs"]["3drs-seed41"] = {}  # a run of another recipe has the name
    assert "3drs-seed42: {extends: 3drs, train: {seed: 42}}" in seeds_to_add(made)
    assert "seed41" not in seeds_to_add(made)
    made["groups"][1]["runs"], made["runs"]["123"] = ["123"], {}
    assert '  123-seed41: {extends: "123", train: {seed: 41}}' in seeds_to_add(made)
    shown = summary(entry(5.0, 0.001, 0.002), entry(0.0, 1.0, 1.0))
    assert seeds_to_add(shown) == ""
    made["groups"] = made["groups"][:1]
    assert seeds_to_add(made) == ""


@pytest.mark.parametrize(
    ("seeds", "rooms", "said"),
    [
        (1, 1, "1 room is too few for a verdict on 2 metrics"),
        (3, 6, "6 rooms are too few for a verdict on 2 metrics"),
    ],
)
def test_rooms_and_seeds_are_asked_for_where_the_rooms_are_too_few(seeds, rooms, said):
    few = {"scenes": rooms, "smallest_p": 2.0 ** (1 - rooms)}
    made = summary(*[entry(9.0, 0.5, 1.0, **few)] * 2, seeds=(seeds, seeds))
    found = next_runs(made, verdicts(made, SCANREFER))
    assert found.lines.count("-seed") == 2 * (3 - seeds)
    sentence = found.sentences[0]
    # Two tests: 2 / 2^6 is 0.031 and above 0.05 / 2, 2 / 2^7 is 0.016 and below.
    assert sentence.startswith(f"{said}: it takes 7 rooms")
    assert sentence.endswith("3 trainings of each setting. Add scans of the evaluation splits.")
    made["runs"]["baseline"] = {"config": {"data": {"demo": {"scenes": 3}}, "train": {}}}
    found = next_runs(made, verdicts(made, SCANREFER))
    assert "The lines below raise data.demo.scenes to 17, of" in found.sentences[0]
    added = yaml.safe_load(found.lines)
    assert added["data"] == {"demo": {"scenes": 17}}  # 7 rooms are three of seven of 17, rounded up
    assert len(added.get("runs", ())) == 2 * (3 - seeds)
    limited = {"benchmarks": {"scanqa": {"limit": {"questions": 10, "of": 99}}}}
    made["runs"]["baseline"] |= limited
    found = next_runs(made, verdicts(made, SCANREFER))
    assert "Raise eval.limit" in found.sentences[0]
    assert "scenes" not in found.lines
    enough = {"scenes": 7, "smallest_p": 2.0**-6}
    made = summary(*[entry(9.0, 0.5, 1.0, **enough)] * 2, seeds=(1, 1))
    assert seeds_to_add(made)


def test_where_nothing_is_shown_more_seeds_and_rooms_find_smaller_differences():
    made = summary(entry(-5.0, 0.3, 0.6), entry(30.0, 0.4, 0.8))
    (sentence,) = next_runs(made, verdicts(made, SCANREFER)).sentences
    assert sentence.startswith("Where no difference is shown, more seeds of both settings find")
    assert sentence.endswith("more rooms help. Add scans of the evaluation splits.")


def test_nothing_is_asked_for_where_something_is_shown():
    made = summary(entry(5.0, 0.001, 0.002), entry(0.0, 1.0, 1.0))
    assert next_runs(made, verdicts(made, SCANREFER)) == NextRuns()


def test_no_seeds_are_asked_for_a_model_as_it_is_or_a_second_name():
    made = summary(entry(1.0), entry(1.0), seeds=(3, 1))
    for name, config in (
        ("again", {"train": {"seed": 40}, "teacher": {"name": "none"}}),
        ("published", CHECKPOINT["config"]),
    ):
        values = made["groups"][1]["metrics"]
        made["groups"].append(
            {"name": name, "runs": [name], "seeds": [40], "metrics": values, "comparison": {}}
        )
        made["runs"][name] = {"config": config}
    made["runs"]["baseline"] = {"config": {"train": {"seed": 40}, "teacher": {"name": "none"}}}
    asked = yaml.safe_load(seeds_to_add(made))["runs"]
    assert list(asked) == ["baseline-seed41", "baseline-seed42"]


@pytest.mark.parametrize("side", ["baseline", "3drs"])
def test_seeds_of_one_side_alone_bring_no_verdict(side):
    made = summary(entry(40.0), entry(1.0), seeds=(1, 1), tests=0)
    made["runs"][side] = CHECKPOINT
    assert next_runs(made, verdicts(made, SCANREFER)) == NextRuns()


def test_a_difference_to_one_answer_is_not_chased():
    made = summary(entry(30.0, 0.01, 0.2), entry(30.0, 0.01, 0.2))
    no = {"benchmarks": {"scanrefer": {"alike": {"most_frequent": "no", "count": 6, "of": 9}}}}
    for run in made["groups"][1]["runs"]:
        made["runs"][run] = no
    judged = verdicts(made, SCANREFER)
    assert all(
        line.words.endswith("; 3 of 3 seeds of 3drs answer most questions with one answer")
        for line in judged[0].lines
    )
    found = next_runs(made, judged)
    (sentence,) = found.sentences
    assert sentence.startswith("On ScanRefer most answers of a setting are alike")
    assert "must first learn to answer: train longer" in sentence
    assert found.lines == ""
