"""The summary as a table: marks, names, and what a reader of the numbers must know."""

import csv
import json

import pytest

from fixtures.summary_files import metrics_file, summary_of


def test_the_table_has_a_row_a_setting(tmp_path, compared):
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert lines[0] == "| run | ScanRefer Acc@0.25 | ScanRefer Acc@0.5 |"
    assert lines[2] == "| baseline (3 seeds) | 40.0 ± 0.0 | 40.0 ± 0.0 |"
    assert lines[3] == r"| 3drs (3 seeds) | 86.7 ± 11.5\* | 86.7 ± 11.5\* |"
    assert "Holm's correction for 2 tests; fewer than 3 seeds of a setting are not" in lines[5]


def test_names_are_escaped_for_markdown(tmp_path):
    name = "a_b|50%"
    files = {
        (run, "sqa3d"): metrics_file(tmp_path, run, "sqa3d", {"em": 0.0, "em_normalised": 0.0})
        for run in ("base", name)
    }
    summary_of(tmp_path, files, baseline="base")
    # Nothing is tested, so there is neither a star nor a word about one.
    assert "Percent. Questions: sqa3d 3." in (tmp_path / "summary.md").read_text()
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
    with (tmp_path / "summary.csv").open(newline="") as stream:
        notes = {row["run"]: row["notes"] for row in csv.DictReader(stream)}
    assert notes == {"3drs": "Four of 9.", "3drs-b": "", "baseline": ""}
