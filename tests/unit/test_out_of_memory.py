"""Too little memory, at real allocations: one line, no damage, and the same again finishes."""

import errno
import json
import os
from pathlib import Path

import psutil
import pytest
import torch
from memory_limit import little_memory
from test_scene_store import BOXES, make_scan
from test_training import finish, loss_rows, start, wait_for_row
from training_run import edit_config, write_run

from threedrs.errors import readable
from threedrs.joblog import job_log
from threedrs.scenes.build import SceneSettings, build_shard
from threedrs.scenes.store import SceneStore

REMEDY = "give the job more of it (mem_mb in the profile's set-resources, or fewer --cores at a "


def test_what_reports_a_lack_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    said = readable(raised.value)
    assert said is not None
    assert said.startswith("memory ran out (")
    assert "you tried to allocate" in said
    assert REMEDY in said
    for error in (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), MemoryError()):
        assert REMEDY in str(readable(error))
    assert readable(RuntimeError("sizes differ")) is None


def test_a_scene_stage_over_its_memory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scans = [make_scan(tmp_path / "data", f"scene000{number}_00") for number in range(2)]
    boxes = {scan.scene: BOXES for scan in scans}
    out, log, manifest = tmp_path / "scenes", tmp_path / "log", tmp_path / "shards/train-000.json"

    def run(count: int, scenes: int = 2) -> None:
        settings = SceneSettings(stride=10, count=count)
        with job_log(log, "build_scenes train-000"):
            build_shard(scans[:scenes], boxes, settings, out, manifest, "train")

    run(60, scenes=1)
    whole = SceneStore.open(out / "scene0000_00.zarr").content_hash()
    with pytest.raises(SystemExit) as ended, little_memory(20 * 2**20):
        run(60)
    assert ended.value.code == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert "build_scenes train-000: memory ran out (Unable to allocate" in said
    assert REMEDY in said
    assert f"(log: {log})" in said
    assert not manifest.exists()
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"]

    run(60)
    assert list(json.loads(manifest.read_text())["scenes"]) == [scan.scene for scan in scans]
    assert SceneStore.open(out / "scene0000_00.zarr").content_hash() == whole


@pytest.mark.slow
def test_a_loader_that_the_kernel_kills(tmp_path: Path) -> None:
    edit_config(write_run(tmp_path, samples=18, epochs=2), save_every=1, workers=1)
    process = start(tmp_path)
    wait_for_row(tmp_path, process, 2)
    loaders = psutil.Process(process.pid).children(recursive=True)
    assert loaders
    for loader in loaders:
        loader.kill()
    status, said = finish(process)
    assert status == 1
    assert said.splitlines()[-1].startswith("train: rank 0: a loader process was lost (")
    assert said.splitlines()[-1].endswith("and run the same command to go on")
    assert "Traceback" not in said

    status, said = finish(start(tmp_path))
    assert status == 0, said
    assert "goes on from step-" in said
    assert [row["step"] for row in loss_rows(tmp_path)] == list(range(1, 11))
