"""The summary: one row a run, deltas to the baseline, groups of runs that differ in the seed."""

import csv
import hashlib
import json

import numpy as np
import pytest

from fixtures.summary_files import (
    config_file,
    metrics_file,
    question_file,
    study,
    summary_of,
)
from threedrs.errors import DataError
from threedrs.evaluation.aggregate import _group_name, setting_groups
from threedrs.report.verdict import verdicts
from threedrs.tasks.registry import TASKS, headline_columns


def test_the_table_has_one_row_a_run(tmp_path, files):
    summary_of(tmp_path, files)
    with (tmp_path / "summary.csv").open(newline="") as stream:
        rows = {row["run"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["baseline", "3drs", "3drs-b"]
    assert rows["3drs"]["scanrefer:acc@0.5"] == "45.5000"
    assert rows["3drs"]["scanrefer:acc@0.5:low"] == "44.5000"
    assert rows["3drs"]["scanrefer:acc@0.5:high"] == ""
    assert rows["3drs"]["sqa3d:em"] == "60.0000"
    assert rows["3drs"]["sqa3d:em_normalised"] == ""
    assert rows["baseline"]["sqa3d:em"] == ""


def test_deltas_training_and_sources(tmp_path, files):
    train = tmp_path / "train.json"
    train.write_text('{"steps": 7}')
    summary = summary_of(tmp_path, files, trains={"3drs": train})
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["benchmarks"] == ["scanrefer", "sqa3d"]
    assert summary["runs"]["3drs"]["deltas"] == {"scanrefer": {"acc@0.25": 10.0, "acc@0.5": 5.5}}
    assert summary["runs"]["baseline"]["deltas"] == {}
    assert summary["runs"]["3drs"]["train"] == {"steps": 7}
    assert summary["runs"]["baseline"]["train"] is None
    assert summary["runs"]["3drs"]["benchmarks"]["sqa3d"]["metrics"]["em"]["value"] == 60.0
    assert set(summary["sources"]) == {f"{run}/{benchmark}" for run, benchmark in files}


def test_what_the_grey_rows_come_from_stands_among_the_sources(tmp_path, files):
    values = dict.fromkeys(TASKS["sqa3d"].metrics, 5.0)
    controls = {}
    for run in ("baseline", "3drs", "3drs-b"):
        path = metrics_file(tmp_path / "asked again", run, "sqa3d", values)
        folder = path.parent.rename(path.parent.with_name("sqa3d-text_only"))
        controls[run, "sqa3d", "text_only"] = folder / "metrics.json"
    trivial = tmp_path / "trivial_answers.json"
    trivial.write_text('{"format_version": 1, "benchmarks": {}}')
    summary = summary_of(tmp_path, files, control_files=controls, trivial=trivial)
    digest = hashlib.sha256(trivial.read_bytes()).hexdigest()
    assert summary["sources"]["trivial_answers"] == digest
    assert {f"{run}/sqa3d-text_only" for run in ("baseline", "3drs", "3drs-b")} < set(
        summary["sources"]
    )


def test_runs_that_differ_in_the_seed_form_a_group(tmp_path, files):
    configs = {
        "baseline": config_file(tmp_path, "baseline", 1, teacher="none"),
        "3drs": config_file(tmp_path, "3drs", 1),
        "3drs-b": config_file(tmp_path, "3drs-b", 2),
    }
    groups = summary_of(tmp_path, files, configs=configs)["groups"]
    assert [group["runs"] for group in groups] == [["baseline"], ["3drs", "3drs-b"]]
    assert groups[0]["metrics"]["scanrefer"]["acc@0.25"] == {"mean": 50.0, "std": None}
    assert groups[1]["metrics"]["scanrefer"]["acc@0.25"]["mean"] == 61.0
    assert groups[1]["metrics"]["scanrefer"]["acc@0.25"]["std"] == pytest.approx(2**0.5)
    assert "sqa3d" not in groups[1]["metrics"]


def test_equal_runs_are_no_seeds(tmp_path, files):
    configs = {
        run: config_file(tmp_path, run, seed, teacher)
        for run, seed, teacher in (
            ("baseline", 42, "none"),
            ("3drs", 42, "vggt"),
            ("3drs-b", 42, "vggt"),
        )
    }
    summary = summary_of(tmp_path, files, configs=configs)
    assert sorted(group["runs"] for group in summary["groups"]) == [
        ["3drs"],
        ["3drs-b"],
        ["baseline"],
    ]


def test_wrong_inputs_are_named(tmp_path, files):
    with pytest.raises(DataError, match="no metrics files"):
        summary_of(tmp_path, {})
    with pytest.raises(DataError, match="baseline 'none' has no metrics; choose one of baseline"):
        summary_of(tmp_path, files, baseline="none")
    older = metrics_file(tmp_path, "x", "scanrefer", {"acc@0.25": 1.0})
    older.write_text('{"format_version": 0}')
    with pytest.raises(DataError, match="is of format version 0, expected 1; delete it"):
        summary_of(tmp_path, {**files, ("x", "scanrefer"): older})
    assert not (tmp_path / "summary.csv").exists()


def test_a_group_has_the_shortest_of_its_names() -> None:
    assert _group_name(["3drs-seed43", "3drs", "3drs-seed44"]) == "3drs (3 seeds)"
    assert _group_name(["3drs"]) == "3drs"


def test_groups_are_compared_with_the_baselines(tmp_path, compared):
    base, group = compared["groups"]
    assert (base["runs"], base["comparison"]) == (["baseline", "baseline-b", "baseline-c"], {})
    assert (group["name"], group["seeds"]) == ("3drs (3 seeds)", [1, 2, 3])
    one = group["comparison"]["scanrefer"]["acc@0.25"]
    # The seeds' variance is 400 / 3 over 3 seeds, of two degrees of freedom; all rooms are alike.
    assert one["difference"] == pytest.approx(140 / 3)
    assert one["seeds_share"] == pytest.approx(1)
    assert (one["seeds"], one["scenes"], one["questions"]) == ([3, 3], 10, 50)
    # t is 7, and with two degrees of freedom p is 1 - t / sqrt(t^2 + 2).
    p = 1 - 7 / 51**0.5
    assert one["p"] == pytest.approx(p)
    assert one["p_holm"] == pytest.approx(2 * p)  # two headline metrics
    assert compared["comparison"]["tests"] == 2
    with (tmp_path / "summary.csv").open(newline="") as stream:
        rows = {row["run"]: row for row in csv.DictReader(stream)}
    assert rows["3drs-c"]["scanrefer:acc@0.25:difference"] == "60.0000"
    assert rows["baseline"]["scanrefer:acc@0.25:difference"] == ""


def test_the_correction_is_over_settings_too(tmp_path):
    teachers = {"baseline": "none", "a": "vggt", "b": "dinov2", "single": "mae"}
    settings = {
        f"{name}{seed or ''}": (teacher, seed, 0.4 if name == "baseline" else 0.8)
        for name, teacher in teachers.items()
        for seed in range(1 if name == "single" else 3)
    }
    summary = study(tmp_path, settings)
    # Two settings of three seeds on two metrics; the one of one seed is not tested.
    assert summary["comparison"]["tests"] == 4
    single = summary["groups"][3]["comparison"]["scanrefer"]["acc@0.5"]
    assert (single["p"], single["p_holm"], single["missed"]) == (None, None, None)
    for group in summary["groups"][1:3]:
        one = group["comparison"]["scanrefer"]["acc@0.5"]
        # Seeds and rooms are alike, so the swaps' p is 2 / 2^10. Three trainings a side that do
        # not vary can be exchanged in 20 ways, and two of these are as far apart.
        assert one["p"] == 2 / 20
        assert one["p_holm"] == 4 * one["p"]


@pytest.mark.parametrize(
    ("seeds", "rooms", "vary"),
    [
        ((1, 1), 40, True),
        ((1, 8), 40, True),
        ((8, 1), 40, True),
        ((2, 2), 40, True),
        ((2, 8), 40, True),
        ((8, 2), 40, True),
        # Two tests: 2 / 2^6 is not below 0.05 / 2.
        ((8, 8), 6, True),
        ((3, 3), 1, True),
        # Trainings that do not vary, each setting always with the same answers.
        ((3, 3), 40, False),
    ],
)
def test_what_no_test_could_reach_has_no_star(tmp_path, seeds, rooms, vary):
    """Nearly all answers of one setting are right, and nearly none of the other's."""
    settings = {
        f"{name}{seed or ''}": (name, seed, share + 0.2 * (vary and seed % 2))
        for name, share, count in zip(("3drs", "baseline"), (0.8, 0), seeds, strict=True)
        for seed in range(count)
    }
    summary = study(tmp_path, settings, rooms=rooms)
    (verdict,) = verdicts(summary, headline_columns(["scanrefer"]))
    assert verdict.kind not in ("better", "worse", "mixed")
    assert {line.tone for line in verdict.lines} == {"even"}
    assert verdict.lines[0].compared["difference"] > 50
    assert "*" not in (tmp_path / "summary.md").read_text().partition("Percent.")[0]
    latex = (tmp_path / "summary.tex").read_text().partition("midrule")[2].partition("Percent.")[0]
    assert "*" not in latex
    assert "textbf" not in latex


def test_the_same_with_enough_of_both_has_one(tmp_path):
    settings = {
        f"{name}{seed or ''}": (name, seed, share + 0.2 * (seed % 2))
        for name, share in (("3drs", 0.8), ("baseline", 0))
        for seed in range(5)
    }
    summary = study(tmp_path, settings)
    (verdict,) = verdicts(summary, headline_columns(["scanrefer"]))
    assert verdict.kind == "better"
    table = (tmp_path / "summary.md").read_text().partition("Percent.")[0]
    assert table.count(r"\*") == 2  # of two metrics
    assert (tmp_path / "summary.tex").read_text().count(r"\textbf{") == 2


def test_a_benchmark_that_one_seed_lacks_is_not_compared(tmp_path):
    names = [f"{name}{seed}" for name in ("baseline", "3drs") for seed in range(3)]
    files, questions = {}, {}
    for run in names:
        for benchmark in ("scanrefer", "sqa3d"):
            if (run, benchmark) != ("3drs2", "sqa3d"):
                values = dict.fromkeys(TASKS[benchmark].metrics, 50.0)
                files[run, benchmark] = metrics_file(tmp_path, run, benchmark, values)
                questions[run, benchmark] = question_file(tmp_path, run, benchmark, 0.4)
    configs = {run: config_file(tmp_path, run, int(run[-1]), run[:-1]) for run in names}
    summary = summary_of(tmp_path, files, "baseline0", configs=configs, questions=questions)
    group = summary["groups"][1]
    assert set(group["comparison"]) == set(group["metrics"]) == {"scanrefer"}
    assert summary["comparison"]["tests"] == 2
    (verdict,) = verdicts(summary, headline_columns(["scanrefer", "sqa3d"]))
    assert {line.column.benchmark for line in verdict.lines} == {"scanrefer"}


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_baselines_recipe_under_other_seeds_is_not_told_from_it(tmp_path, seeds):
    """The A/A trial: four names of one recipe, whose trainings vary by 10 points."""
    luck = np.random.default_rng(seeds)
    settings = {
        f"{name}{seed or ''}": (name, seed, float(luck.normal(0.5, 0.1)))
        for name in ("baseline", "again", "once-more", "and-again")
        for seed in range(seeds)
    }
    summary = study(tmp_path, settings, luck)
    judged = verdicts(summary, headline_columns(["scanrefer"]))
    assert len(judged) == 3
    start = (
        "One training each: the method cannot be told" if seeds == 1 else "No difference between "
    )
    assert all(verdict.answer.startswith(start) for verdict in judged)
    assert "*" not in (tmp_path / "summary.md").read_text().partition("Percent.")[0]


def test_keys_that_shape_no_weight_make_no_setting(tmp_path):
    configs = {
        "a": {"train": {"seed": 1, "eval_every": None}, "model": {"attention": "auto"}},
        "b": {"train": {"seed": 2, "eval_every": 50}, "model": {"attention": "sdpa"}},
        "c": {"train": {"seed": 3, "epochs": 2}, "model": {"attention": "auto"}},
        # The same training as a: not another seed.
        "d": {"train": {"seed": 1, "eval_every": 9}, "model": {"attention": "auto"}},
    }
    assert setting_groups(["a", "b", "c", "d"], configs, "a") == [["a", "b"], ["c"], ["d"]]
    frozen = {
        run: {"train": {"seed": seed, "tunable": tunable, "learning_rate_vision_tower": rate}}
        for run, seed, tunable, rate in (
            ("a", 1, ["heads"], 1e-3),
            ("b", 2, ["heads"], 1e-4),
            ("c", 3, ["vision_tower"], 1e-3),
            ("d", 4, ["vision_tower"], 1e-4),
        )
    }
    assert setting_groups(list(frozen), frozen, "a") == [["a", "b"], ["c"], ["d"]]
    unsupervised = {
        teacher: {
            "train": {"seed": seed},
            "teacher": {"name": teacher},
            "supervision": {"weight": 0.0, "loss": loss},
        }
        for seed, (teacher, loss) in enumerate([("none", "l2"), ("vggt", "cosine")])
    }
    assert setting_groups(["none", "vggt"], unsupervised, "none") == [["none", "vggt"]]
    as_they_are = {
        run: {"checkpoint": "initial", "train": {"seed": seed}} for seed, run in enumerate("ab")
    }
    assert setting_groups(["a", "b"], as_they_are, "b") == [["b"], ["a"]]
