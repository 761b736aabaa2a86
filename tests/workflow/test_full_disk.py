"""A disk that fills up under each stage: one line, nothing half done, and the same command goes on.

The folder that a stage writes to is a small file system in memory, mounted over a finished run's
folder and taken away again. Mounting needs the superuser.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.changed_checkout import trial as trial  # a fixture
from fixtures.checkout import Checkout
from fixtures.same_results import differences
from fixtures.stale_jobs import TEACHER


@dataclass(frozen=True)
class Stage:
    """A stage, its folder and result below ``results``, and the KiB with which it must fail.

    ``gone`` are patterns of what is not on the disk yet, but for ``kept``; the rest of the folder
    is there.
    """

    name: str
    folder: str
    kilobytes: int
    result: str
    gone: tuple[str, ...] = ("*",)
    kept: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return f"results/{self.folder}/{self.result}"


SUMMARIES = ("summary.csv", "summary.json", "summary.tex", "summary.md")
# Stages of one group do not need each other's results, so one call of Snakemake meets them all.
GROUPS = (
    [Stage("demo_data", "demo", 2000, "scannet/scannetv2_train.txt")],
    [
        Stage("boxes", "boxes", 4, "val-000.json", ("val-000.json",)),
        Stage("balance", "instructions/mixes", 40, "full.jsonl"),
    ],
    [
        Stage(
            "build_scenes",
            "scenes",
            1000,
            "shards/val-000.json",
            ("scene0002_00.zarr", "shards/val-000.json"),
        ),
        Stage(
            "extract_features",
            "features",
            300,
            f"{TEACHER}/train-000.zarr/manifest.json",
            (f"{TEACHER}/train-000.zarr",),
        ),
        Stage("convert_instructions", "instructions", 4, "scan2cap_val.jsonl", ("scan2cap_val.*",)),
        Stage("train", "train/baseline", 12000, "train.json", kept=("config.json",)),
    ],
    [
        Stage("predict", "eval/3drs/scanrefer", 24, "predictions.jsonl"),
        Stage(
            "score",
            "eval/3drs/sqa3d",
            4,
            "metrics.json",
            kept=("predictions.jsonl", "predictions.meta.json"),
        ),
    ],
    [Stage("aggregate", "report", 32, "summary.json")],
    [Stage("build_report", "report", 400, "index.html", kept=SUMMARIES)],
)


@contextmanager
def small_disk(stage: Stage, results: Path) -> Iterator[None]:
    """Mount a file system with what the stage finds, and little besides, over its folder."""
    folder = results / stage.folder
    before = folder.with_name(f"{folder.name}.before")
    folder.rename(before)
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200M", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        if done.returncode:
            pytest.skip(f"this user may not mount here: {done.stderr.strip()}")
        shutil.copytree(before, folder, dirs_exist_ok=True)
        for path in [path for pattern in stage.gone for path in folder.glob(pattern)]:
            if path.name not in stage.kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (folder / "kept").mkdir()  # Snakemake removes folders that it leaves empty
        size = shutil.disk_usage(folder).used // 1024 + stage.kilobytes
        resize(folder, f"{size}k")
        yield
        subprocess.run(["umount", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True)  # where the block failed
        folder.rmdir()
        before.rename(folder)


def resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def assert_one_line(said: str, stage: Stage) -> None:
    """The stage says in one line which file and what to do."""
    place = re.escape(f"results/{stage.folder}")
    line = rf"^threedrs: error: {stage.name}[^\n]*: [^\n]*{place}[^\n]*No space left on device"
    remedy = r"[^\n]*free (?:disk )?space there,? (?:or make results/|and run the same)"
    assert re.search(line + remedy, said, re.MULTILINE), said[-5000:]


@pytest.mark.parametrize("stages", GROUPS, ids=lambda stages: ", ".join(s.name for s in stages))
def test_stages_run_out_of_disk(stages: list[Stage], trial: Checkout, finished: Checkout) -> None:
    results, whole = trial.folder / "results", finished.folder / "results"
    targets = [stage.target for stage in stages]
    trained = results / "logs/train/baseline.log"
    with ExitStack() as disks:
        for stage in stages:
            disks.enter_context(small_disk(stage, results))
        said = trial.snakemake("--cores", "2", "--keep-going", *targets)
        assert said.returncode != 0
        for stage in stages:
            assert_one_line(said.stdout, stage)
        assert "Traceback" not in said.stdout, said.stdout[-5000:]
        last = said.stdout.splitlines()[-len(stages) :]
        assert all(line.startswith("threedrs: error: ") for line in last), last
        assert [target for target in targets if (trial.folder / target).exists()] == []

        for stage in stages:
            resize(results / stage.folder, "200M")
        said = trial.snakemake("--cores", "2", *targets)
        assert said.returncode == 0, said.stdout[-6000:]
        for stage in stages:
            if stage.name == "train":  # the older checkpoint was not lost
                assert "goes on from step-00000002" in trained.read_text()
            differ = differences(results, whole)
            found = [name for name in differ if name.startswith(f"{stage.folder}/")]
            assert found == []
            assert list((results / stage.folder).rglob("*.tmp")) == []
