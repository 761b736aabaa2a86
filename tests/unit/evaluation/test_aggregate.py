"""The summary: one row a run, deltas to the baseline, groups of runs that differ in the seed."""

import csv
import json

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.evaluation.aggregate import _group_name, aggregate, setting_groups
from threedrs.evaluation.compare import write_per_question
from threedrs.metrics.bootstrap import mean_metric
from threedrs.report.verdict import verdicts
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.registry import TASKS, headline_columns


def metrics_file(folder, run, benchmark, values):
    path = folder / run / benchmark / "metrics.json"
    path.parent.mkdir(parents=True)
    metrics = {
        name: {"value": value, "low": None if value is None else value - 1, "high": None}
        for name, value in values.items()
    }
    content = {"format_version": 1, "run": run, "benchmark": benchmark, "n": 3}
    path.write_text(json.dumps({**content, "metrics": metrics, "by_type": {}, "provenance": {}}))
    return path


def question_file(folder, run, benchmark, share, luck=None):
    """Ten scenes of five questions; the first of each are right, or as many as ``luck`` draws."""
    rows = [
        Prediction(id=f"q{i}", benchmark=benchmark, scene=f"scene{i // 5:04d}_00")
        for i in range(50)
    ]
    right = [float(i % 5 < share * 5) for i in range(50)]
    if luck is not None:
        right = (luck.random(50) < share).astype(float)
    path = folder / run / benchmark / "per_question.npz"
    metrics = {name: mean_metric(right) for name in TASKS[benchmark].metrics}
    write_per_question(path, rows, metrics)
    return path


def config_file(folder, run, seed, teacher="vggt"):
    path = folder / run / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"train": {"seed": seed, "epochs": 1}, "teacher": {"name": teacher}}
    path.write_text(json.dumps({"run": run, **settings, "paths": {"out": f"results/train/{run}"}}))
    return path


def summary_of(folder, files, baseline="baseline", trains=None, configs=None, questions=None):
    return aggregate(
        files,
        per_question_files=questions or {},
        baseline=baseline,
        out_latex=folder / "summary.tex",
        out_markdown=folder / "summary.md",
        out_csv=folder / "summary.csv",
        out_json=folder / "summary.json",
        train_summaries=trains or {},
        run_configs=configs or {},
    )


@pytest.fixture
def files(tmp_path):
    grounding = {"baseline": (50.0, 40.0), "3drs": (60.0, 45.5), "3drs-b": (62.0, 46.5)}
    files = {
        (run, "scanrefer"): metrics_file(
            tmp_path, run, "scanrefer", {"acc@0.25": low, "acc@0.5": high}
        )
        for run, (low, high) in grounding.items()
    }
    files["3drs", "sqa3d"] = metrics_file(
        tmp_path, "3drs", "sqa3d", {"em": 60.0, "em_normalised": None}
    )
    return files


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
    swapped = {**files, ("3drs", "scanrefer"): files["baseline", "scanrefer"]}
    with pytest.raises(DataError, match="run is 'baseline', expected '3drs'"):
        summary_of(tmp_path, swapped)
    lacking = metrics_file(tmp_path, "x", "scanrefer", {"acc@0.25": 1.0})
    with pytest.raises(DataError, match=r"has no metric 'acc@0.5'"):
        summary_of(tmp_path, {**files, ("x", "scanrefer"): lacking})
    lacking.write_text("[]")
    with pytest.raises(DataError, match="is not a metrics file of format version 1"):
        summary_of(tmp_path, {**files, ("x", "scanrefer"): lacking})
    assert not (tmp_path / "summary.csv").exists()


def study(folder, settings, luck=None):
    """Summarise runs ``{name: (teacher, seed, share of right answers)}`` of ScanRefer."""
    files = {
        (run, "scanrefer"): metrics_file(
            folder, run, "scanrefer", {"acc@0.25": 100 * share, "acc@0.5": 100 * share}
        )
        for run, (_, _, share) in settings.items()
    }
    return summary_of(
        folder,
        files,
        configs={
            run: config_file(folder, run, seed, teacher)
            for run, (teacher, seed, _) in settings.items()
        },
        questions={
            (run, "scanrefer"): question_file(folder, run, "scanrefer", share, luck)
            for run, (_, _, share) in settings.items()
        },
    )


@pytest.fixture
def compared(tmp_path):
    """Three seeds a setting: the baseline answers 2 of 5 questions, 3drs 4, 4 and 5 of 5."""
    return study(
        tmp_path,
        {
            "baseline": ("none", 1, 0.4),
            "baseline-b": ("none", 2, 0.4),
            "baseline-c": ("none", 3, 0.4),
            "3drs": ("vggt", 1, 0.8),
            "3drs-b": ("vggt", 2, 0.8),
            "3drs-c": ("vggt", 3, 1.0),
        },
    )


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
        assert one["p"] == 2 / 2**10  # seeds and rooms are alike, so the swaps' p is the larger
        assert one["p_holm"] == 4 * one["p"]


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


def test_the_tables_paste_into_a_paper(tmp_path, compared):
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert lines[0] == "| run | ScanRefer Acc@0.25 | ScanRefer Acc@0.5 |"
    assert lines[2] == "| baseline (3 seeds) | 40.0 ± 0.0 | 40.0 ± 0.0 |"
    assert lines[3] == r"| 3drs (3 seeds) | 86.7 ± 11.5\* | 86.7 ± 11.5\* |"
    assert "Holm's correction for 2 tests; fewer than 3 seeds of a setting are not" in lines[5]
    latex = (tmp_path / "summary.tex").read_text()
    assert r"\multicolumn{2}{c}{ScanRefer}" in latex
    assert r"baseline (3 seeds) & 40.0 {\scriptsize $\pm$0.0}" in latex
    assert r"\textbf{86.7} {\scriptsize $\pm$11.5}$^{*}$" in latex
    assert latex.count("{") == latex.count("}")


def test_names_are_escaped_for_latex_and_markdown(tmp_path):
    name = "a_b|50%"
    files = {
        (run, "sqa3d"): metrics_file(tmp_path, run, "sqa3d", {"em": 0.0, "em_normalised": 0.0})
        for run in ("base", name)
    }
    summary_of(tmp_path, files, baseline="base")
    # Nothing is tested, so there is neither a star nor a word about one.
    assert "Percent. Questions: sqa3d 3." in (tmp_path / "summary.md").read_text()
    assert r"a\_b|50\% & \textbf{0.0} \\" in (tmp_path / "summary.tex").read_text()
    assert r"| a_b\|50% | 0.0 |" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("rule", "mark"), [("as_published", "†"), ("by_frame", "")])
def test_features_of_other_frames_are_said_where_the_scores_stand(tmp_path, files, rule, mark):
    trains = {}
    for run, other in (("3drs", 4), ("baseline", 0)):
        trains[run] = tmp_path / run / "train.json"
        frames = {"rule": rule, "other_frames": other, "notes": ["Four of 9."] if other else []}
        trains[run].write_text(json.dumps({"teacher_frames": frames}))
    summary_of(tmp_path, files, trains=trains)
    markdown = (tmp_path / "summary.md").read_text()
    assert f"| 3drs{mark} |" in markdown
    assert "| baseline |" in markdown
    assert ("† 3drs: Four of 9." in markdown) == bool(mark)
    assert ("3drs\\textdagger &" in (tmp_path / "summary.tex").read_text()) == bool(mark)
    with (tmp_path / "summary.csv").open(newline="") as stream:
        notes = {row["run"]: row["notes"] for row in csv.DictReader(stream)}
    assert notes == {"3drs": "Four of 9.", "3drs-b": "", "baseline": ""}


def test_a_limit_stands_in_the_latex_table_itself(tmp_path, files):
    content = json.loads(files["3drs", "scanrefer"].read_text())
    content["limit"] = {"questions": 3, "of": 9508}
    files["3drs", "scanrefer"].write_text(json.dumps(content))
    summary_of(tmp_path, files)
    shown = [
        line for line in (tmp_path / "summary.tex").read_text().splitlines() if line[:1] != "%"
    ]
    assert r"\multicolumn{2}{c}{ScanRefer (first 3 of 9508, not a score)}" in "\n".join(shown)
