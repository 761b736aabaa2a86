"""The summary as tables for a paper: marks, names, and what a reader of the numbers must know."""

import csv
import json

import pytest

from fixtures.summary_files import metrics_file, summary_of
from threedrs.evaluation.tables import latex_table


def test_the_tables_paste_into_a_paper(tmp_path, compared):
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert lines[0] == "| run | ScanRefer Acc@0.25 | ScanRefer Acc@0.5 |"
    assert lines[2] == "| baseline (3 seeds) | 40.0 ± 0.0 | 40.0 ± 0.0 |"
    assert lines[3] == r"| 3drs (3 seeds) | 86.7 ± 11.5\* | 86.7 ± 11.5\* |"
    assert "Holm's correction for 2 tests; fewer than 3 seeds of a setting are not" in lines[5]
    table, notes = (tmp_path / "summary.tex").read_text().split("\\par{\\footnotesize\n")
    assert table.splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & \multicolumn{2}{c}{ScanRefer} \\",
        r"\cmidrule(lr){2-3}",
        r"Run & Acc@0.25 & Acc@0.5 \\",
        r"\midrule",
        r"baseline (3 seeds) & 40.0 $\pm$ 0.0 & 40.0 $\pm$ 0.0 \\",
        r"3drs (3 seeds) & \textbf{86.7} $\pm$ 11.5$^{*}$ & \textbf{86.7} $\pm$ 11.5$^{*}$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert "(p \\textless{} 0.05 after Holm's correction for 2 tests;" in notes
    assert notes.endswith("\n\\par}\n")


def test_latex_keeps_the_columns_of_each_benchmark_together(tmp_path, files):
    summary = summary_of(tmp_path, files)
    summary["trivial"] = [{"name": "chance", "how": "One of the boxes.", "metrics": {}}]
    rows = latex_table(summary).split("\\end{tabular}")[0].splitlines()
    assert r" & \multicolumn{2}{c}{ScanRefer} & \multicolumn{1}{c}{SQA3D} \\" in rows
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in rows
    assert rows[-3:] == [r"\midrule", r"\textit{chance} & -- & -- & -- \\", r"\bottomrule"]
    written = [row for row in rows if "&" in row]
    assert all(row.endswith(r" \\") for row in written)
    # A group's heading spans as many columns as it says.
    assert {row.count(" & ") for row in written if "multicolumn" not in row} == {3}


def test_names_are_escaped_for_latex_and_markdown(tmp_path):
    name = "a_b|50%"
    files = {
        (run, "sqa3d"): metrics_file(tmp_path, run, "sqa3d", {"em": 0.0, "em_normalised": 0.0})
        for run in ("base", name)
    }
    summary_of(tmp_path, files, baseline="base")
    # Nothing is tested, so there is neither a star nor a word about one.
    assert "Percent. Questions: sqa3d 3." in (tmp_path / "summary.md").read_text()
    assert r"a\_b\textbar{}50\% & 0.0 \\" in (tmp_path / "summary.tex").read_text()
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
    assert ("3drs\\textdagger{} &" in (tmp_path / "summary.tex").read_text()) == bool(mark)
    with (tmp_path / "summary.csv").open(newline="") as stream:
        notes = {row["run"]: row["notes"] for row in csv.DictReader(stream)}
    assert notes == {"3drs": "Four of 9.", "3drs-b": "", "baseline": ""}


def test_a_limit_stands_below_the_latex_table(tmp_path, files):
    content = json.loads(files["3drs", "scanrefer"].read_text())
    content.update(limit={"questions": 4, "of": 9508}, n=4)
    files["3drs", "scanrefer"].write_text(json.dumps(content))
    summary_of(tmp_path, files)
    notes = (tmp_path / "summary.tex").read_text().split("\\end{tabular}")[1]
    assert "scanrefer 4 (the first of 9508: not a score of the benchmark)" in notes


def test_braces_of_names_and_answers_do_not_end_those_of_latex(tmp_path):
    name = r"[{x}}\y~^&#$"
    files = {
        (run, "sqa3d"): metrics_file(tmp_path, run, "sqa3d", {"em": 0.0, "em_normalised": 0.0})
        for run in ("base", name)
    }
    summary_of(tmp_path, files, baseline="base")
    latex = (tmp_path / "summary.tex").read_text()
    assert r"{[}\{x\}\}\textbackslash{}y\textasciitilde{}\textasciicircum{}\&\#\$ & 0.0 \\" in latex
    bare = latex.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
