"""Every rule through `--profile slurm` on a real one-node Slurm with stand-in GPUs.

A job costs two starts of Snakemake more than here, so one run is asked one benchmark, and those
starts are forks. test_slurm_faults.py and test_slurm_training.py start processes of their own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from fixtures.checkout import SMALL, Checkout, snakemake_logs
from fixtures.demo_results import check_results
from fixtures.slurm_cluster import running_cluster
from fixtures.slurm_jobs import SOON, look_often, submitted

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ONE_OF_EACH = {
    "teacher": {"scenes_per_shard": 2},
    "instructions": {"benchmarks": ["scanrefer"]},
    "runs": {"baseline": None},
    "eval": {"benchmarks": ["scanrefer"]},
    "report": {"baseline": "3drs"},
}
LOCAL = {"check_limit", "run_config"}


@pytest.fixture
def cluster() -> Iterator[Path]:
    yield from running_cluster()


@pytest.mark.usefixtures("cluster")
def test_demo_on_slurm(checkout: Checkout) -> None:
    config = yaml.safe_load(SMALL.read_text())
    update_config(config, ONE_OF_EACH)
    path = checkout.folder / "one.yaml"
    path.write_text(yaml.safe_dump(config))
    look_often(checkout)
    planned = checkout.planned(config=path)
    before = snakemake_logs(checkout.folder)
    said = checkout.snakemake(*SOON, "all", config=path)
    assert said.returncode == 0, said.stdout[-6000:]
    (log,) = snakemake_logs(checkout.folder) - before
    given = submitted(log.read_text())
    assert set(given) == {job for job in planned if job.split()[0] not in LOCAL}
    assert set(given.values()) == {1}
    check_results(checkout.folder, ["3drs"], ["scanrefer"])
    assert checkout.planned(config=path) == set()
