"""A killed job, a killed Snakemake: the same command goes on, and ends with the same results.

fixtures/kill_chain.py holds the checks of each call; kill_matrix.py runs all points.
"""

import shutil
from itertools import pairwise
from pathlib import Path

from fixtures.checkout import Checkout, copy_finished
from fixtures.kill_chain import run_chain
from fixtures.kill_points import point
from fixtures.same_results import differences

# Job, moment, victim, in the order in which the calls meet them
KILLS = (
    ("build_scenes train-000", "first store half written", "snakemake"),
    ("extract_features vggt-tiny train-000", "start", "worker"),
    ("train 3drs", "step 1 logged", "snakemake"),
    ("train 3drs", "model half written", "worker"),
    ("predict 3drs scanrefer", "some answers written", "worker"),
    ("score 3drs scanrefer", "start", "snakemake"),
)
REMOVED = (
    "scenes/shards/train-000.json",
    "scenes/scene0000_00.zarr",
    "features/vggt-tiny/train-000.zarr",
    "train/3drs",
    "eval/3drs/scanrefer",
)


def test_six_kills_on_the_way_to_one_score(finished: Checkout, tmp_path: Path) -> None:
    trial = copy_finished(finished, tmp_path / "checkout")
    for name in REMOVED:
        path = trial.folder / "results" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    target = "results/eval/3drs/scanrefer/metrics.json"
    outcomes = list(run_chain(trial, ["--cores", "2", target], [point(*kill) for kill in KILLS]))

    assert [outcome.hit for outcome in outcomes] == [True] * len(KILLS) + [False]
    for before, after in pairwise(outcomes):
        killed = before.point is not None and before.point.victim == "snakemake"
        assert ("removed the lock that a killed Snakemake left" in after.said) == killed
    logs = trial.folder / "results/logs"
    assert "goes on from step-00000004" in (logs / "train/3drs.log").read_text()
    answered = (logs / "predict/3drs/scanrefer.log").read_text()
    assert "questions are answered already; going on" in answered
    assert differences(trial.folder / "results", finished.folder / "results") == []
