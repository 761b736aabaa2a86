"""What the tests of prediction ask a model with, and runs for the tests of the summary."""

import pytest

from fixtures.inference_run import write_model, write_questions, write_scenes
from fixtures.summary_files import metrics_file, study


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def records(tmp_path):
    return write_questions(tmp_path / "scanqa_val.jsonl")


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
