"""Every rule through `--profile slurm` on a real one-node Slurm with stand-in GPUs.

A job costs two starts of Snakemake more than here, so one run is asked one benchmark.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from fixtures.checkout import SMALL, Checkout
from fixtures.demo_results import check_results
from fixtures.slurm_cluster import running_cluster
from fixtures.slurm_jobs import snakemake, submitted

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ONE_OF_EACH = {
    "teacher": {"scenes_per_shard": 2},
    "instructions": {"benchmarks": ["scanrefer"]},
    "runs": {"baseline": None},
    "eval": {"benchmarks": ["scanrefer"]},
    "report": {"baseline": "3drs"},
}
LOCAL = {"check_limit", "run_config"}
SECONDS = 600.0


@pytest.fixture
def cluster() -> Iterator[Path]:
    yield from running_cluster()


@pytest.mark.usefixtures("cluster")
def test_demo_on_slurm(checkout: Checkout) -> None:
    config = yaml.safe_load(SMALL.read_text())
    update_config(config, ONE_OF_EACH)
    path = checkout.folder / "one.yaml"
    path.write_text(yaml.safe_dump(config))
    planned = checkout.planned(config=path)
    with snakemake(checkout, "all", config=path) as run:
        assert run.ended(SECONDS) == 0, run.said()[-6000:]
    given = submitted(run.log())
    assert set(given) == {job for job in planned if job.split()[0] not in LOCAL}
    assert set(given.values()) == {1}
    check_results(checkout.folder, ["3drs"], ["scanrefer"])
    assert checkout.planned(config=path) == set()
