"""A disk that fills up under each stage: one line, nothing half done, and the same command goes on.

The folder that the stage writes to is a small file system in memory, mounted over a finished run's
folder and taken away again. Mounting needs the superuser.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.checkout import Checkout, copy_finished
from fixtures.same_results import differences

# stage -> folder that is small, KiB it has, target, what of the folder the stage needs already
STAGES: dict[str, tuple[str, int, str, tuple[str, ...]]] = {
    "demo_data": ("demo", 6000, "results/demo/demo.json", ()),
    "boxes": ("boxes", 12, "results/boxes/train-000.json", ()),
    "build_scenes": ("scenes", 2400, "results/scenes/shards/train-000.json", ()),
    "extract_features": (
        "features",
        600,
        "results/features/vggt-tiny/train-000.zarr/manifest.json",
        (),
    ),
    "convert_instructions": (
        "instructions",
        12,
        "results/instructions/scan2cap_train.jsonl",
        (),
    ),
    "balance": ("instructions/mixes", 40, "results/instructions/mixes/full.jsonl", ()),
    "train": ("train/3drs", 12000, "results/train/3drs/train.json", ("config.json",)),
    "predict": ("eval/3drs/scanrefer", 24, "results/eval/3drs/scanrefer/predictions.jsonl", ()),
    "score": (
        "eval/3drs/scanrefer",
        36,
        "results/eval/3drs/scanrefer/metrics.json",
        ("predictions.jsonl", "predictions.meta.json"),
    ),
    "aggregate": ("report", 32, "results/report/summary.json", ()),
    "build_report": (
        "report",
        400,
        "results/report/index.html",
        ("summary.csv", "summary.json", "summary.tex", "summary.md"),
    ),
}


@pytest.fixture(scope="module")
def trial(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_finished(finished, tmp_path_factory.mktemp("disk") / "checkout")


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Mount an empty file system of this size over ``folder`` for the time of the block."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=200M", str(folder)], check=True)


def assert_one_line(said: str, stage: str, folder: Path) -> None:
    """The stage says in one line which file and what to do, and shows no traceback."""
    place = re.escape(f"results/{folder}")
    line = rf"^(?:\S+ ERROR )?{stage}[^\n]*: [^\n]*{place}[^\n]*No space left on device[^\n]*"
    remedy = r"free (?:disk )?space there,? (?:or make results/|and run the same)"
    assert re.search(line + remedy, said, re.MULTILINE), said[-5000:]
    assert "Traceback" not in said, said[-5000:]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_out_of_disk(stage: str, trial: Checkout, finished: Checkout) -> None:
    name, kilobytes, target, needed = STAGES[stage]
    results, whole = trial.folder / "results", finished.folder / "results"
    folder = results / name
    with small_disk(folder, kilobytes):
        (folder / "kept").mkdir()  # Snakemake removes folders that it leaves empty
        for file in needed:
            shutil.copy2(whole / name / file, folder / file)
        said = trial.snakemake("--cores", "2", target)
        assert said.returncode != 0
        assert_one_line(said.stdout, stage, Path(name))
        assert not (trial.folder / target).exists()
        enlarge(folder)
        said = trial.snakemake("--cores", "2", target)
        assert said.returncode == 0, said.stdout[-6000:]
        assert (trial.folder / target).exists()
        if stage == "train":  # the older checkpoint was not lost
            assert "goes on from step-00000002" in said.stdout
        found = [line for line in differences(results, whole) if line.startswith(name)]
        assert found == []
        assert list(folder.rglob("*.tmp")) == []
