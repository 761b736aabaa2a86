"""The demo end to end on this machine, and what a second call runs."""

from fixtures.checkout import Checkout
from fixtures.demo_results import check_results


def test_every_result_is_there(finished: Checkout) -> None:
    check_results(finished.folder)


def test_a_second_call_runs_nothing(finished: Checkout) -> None:
    said = finished.snakemake("--cores", "2", "all")
    assert said.returncode == 0
    assert "Nothing to be done" in said.stdout
