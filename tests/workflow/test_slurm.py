"""The demo through `--profile slurm` on a real one-node Slurm with stand-in GPUs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.checkout import Checkout
from fixtures.demo_results import check_results
from fixtures.slurm_cluster import running_cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[Path]:
    yield from running_cluster()


@pytest.mark.usefixtures("cluster")
def test_demo_on_slurm(checkout: Checkout) -> None:
    said = checkout.snakemake("--profile", "slurm", "all")
    assert said.returncode == 0, said.stdout[-6000:]
    assert "submitted with SLURM jobid" in said.stdout
    check_results(checkout.folder)
    assert checkout.planned_jobs() == {}
