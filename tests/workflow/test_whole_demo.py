"""The demo end to end on this machine, and what a second call runs."""

from conftest import SMALL, Checkout
from demo_results import check_results

PER_RUN = {"train": 1, "run_config": 1, "predict": 5, "score": 5}
REPORTS = {"aggregate": 1, "build_report": 1, "all": 1}


def test_every_result_is_there(finished: Checkout) -> None:
    check_results(finished.folder)


def test_a_second_call_runs_nothing(finished: Checkout) -> None:
    said = finished.snakemake("--cores", "2", "all")
    assert said.returncode == 0
    assert "Nothing to be done" in said.stdout


def edited(finished: Checkout, name: str, old: str, new: str):
    """Return a copy of the small configuration with one text replaced."""
    text = SMALL.read_text()
    assert old in text
    path = finished.folder / name
    path.write_text(text.replace(old, new))
    return path


def test_a_comment_in_the_configuration_runs_nothing(finished: Checkout) -> None:
    path = edited(finished, "comment.yaml", "frames:", "# a remark\nframes:")
    assert finished.planned_jobs(config=path) == {}


def test_a_loss_weight_reruns_its_run_only(finished: Checkout) -> None:
    path = edited(
        finished, "weight.yaml", "report:", "runs:\n  3drs: {supervision: {weight: 0.5}}\nreport:"
    )
    assert finished.planned_jobs(config=path) == PER_RUN | REPORTS


def test_report_text_reruns_the_report_only(finished: Checkout) -> None:
    path = edited(finished, "title.yaml", "report:", "report:\n  title: Another")
    assert finished.planned_jobs(config=path) == {"build_report": 1, "all": 1}


def test_frames_rerun_all_but_conversion(finished: Checkout) -> None:
    path = edited(finished, "frames.yaml", "count: 3", "count: 4")
    jobs = finished.planned_jobs(config=path)
    assert not {"demo_data", "boxes", "convert_instructions", "balance"} & set(jobs)
    assert jobs["build_scenes"] == 2
    assert jobs["train"] == 2


def test_threads_and_memory_rerun_nothing(finished: Checkout) -> None:
    assert finished.planned_jobs("--set-resources", "train:mem_mb=5000", "train:gpu=2") == {}
