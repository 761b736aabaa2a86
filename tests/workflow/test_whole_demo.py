"""The demo end to end on this machine, and what a second call runs."""

from pathlib import Path

from fixtures.checkout import Checkout
from fixtures.demo_results import check_results


def test_every_result_is_there(finished: Checkout) -> None:
    check_results(finished.folder)


def test_it_said_little_and_ended_with_scores_and_page(finished: Checkout) -> None:
    lines = (finished.folder / "said.txt").read_text().splitlines()
    assert len(lines) < 60
    (start,) = (number for number, line in enumerate(lines) if line.startswith("Done in "))
    end = [line.split(maxsplit=1) for line in lines[start + 1 :]]
    assert len(end) <= 13
    labels = [label for label, _ in end]
    assert labels[:5] == ["stages", "reused", "scores", "scores", "answer"]
    assert end[-1] == ["page", str(finished.folder / "results/report/index.html")]


def test_the_longest_stage_says_how_far_it_is(finished: Checkout) -> None:
    log = (finished.folder / "results/logs/demo_data.log").read_text()
    assert [f"{number} of 3 rooms rendered" in log for number in (1, 2, 3)] == [True] * 3


def test_a_second_call_runs_nothing(finished: Checkout) -> None:
    said = finished.snakemake("--cores", "2", "all")
    assert said.returncode == 0
    lines = said.stdout.splitlines()
    (start,) = (
        number for number, line in enumerate(lines) if line.startswith("Nothing to be done")
    )
    assert [line.split()[0] for line in lines[start + 1 :]][:3] == ["scores", "scores", "answer"]
    assert lines[-1].split()[0] == "page"


def test_snakemake_makes_its_own_report_with_the_page(finished: Checkout, tmp_path: Path) -> None:
    said = finished.snakemake("all", "--report", str(tmp_path / "report.html"))
    assert said.returncode == 0, said.stdout
    assert "results/report/index.html" in (tmp_path / "report.html").read_text()
