"""Too little memory, at real allocations: one line, no damage, and the same again finishes."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fixtures.hostile import little_memory
from fixtures.scan_files import BOXES, make_scan
from threedrs.errors import user_message
from threedrs.scannet.layout import DataLayout
from threedrs.scenes.build import build_shard
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.store import SceneStore
from threedrs.workflow.job_log import job_log

MANIFEST = Path("shards/train-000.json")
REMEDY = "give the job more of it (mem_mb in the profile's set-resources, or fewer --cores at a "


def test_what_reports_a_lack_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    said = user_message(raised.value)
    assert said is not None
    assert said.startswith("memory ran out (")
    assert "you tried to allocate" in said
    assert REMEDY in said
    for error in (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), MemoryError()):
        assert REMEDY in str(user_message(error))
    assert user_message(RuntimeError("sizes differ")) is None


def build(folder: Path, *, scenes: int, spare: int | None = None) -> None:
    """Build the shard of the scans below ``folder`` with ``spare`` bytes more than are in use."""
    scans = [DataLayout(root=folder / "data").scan(f"scene000{number}_00") for number in (0, 1)]
    boxes = {scan.scene: BOXES for scan in scans}
    settings, manifest = SceneSettings(stride=10, count=60), folder / MANIFEST
    limit = contextlib.nullcontext() if spare is None else little_memory(spare)
    with job_log(folder / "log", "build_scenes train-000"), limit:
        build_shard(scans[:scenes], boxes, settings, folder / "scenes", manifest, "train")


@pytest.mark.slow
def test_a_scene_stage_over_its_memory(tmp_path: Path) -> None:
    for number in range(2):
        make_scan(tmp_path / "data", f"scene000{number}_00")
    # In a process of its own, as this one may have room left over from other tests; the first
    # scene, built without a limit, also lets the libraries make their own buffers.
    code = "import sys, pathlib, test_out_of_memory as test; folder = pathlib.Path(sys.argv[1]); "
    code += "test.build(folder, scenes=1); (folder / test.MANIFEST).unlink(); "
    code += "test.build(folder, scenes=2, spare=20 * 2**20)"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert ended.returncode == 1
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert "build_scenes train-000: memory ran out (" in said
    assert REMEDY in said
    assert f"(log: {tmp_path / 'log'})" in said
    store = tmp_path / "scenes" / "scene0000_00.zarr"
    whole = SceneStore.open(store).content_hash()
    assert not (tmp_path / MANIFEST).exists()
    assert not [path for path in (tmp_path / "scenes").iterdir() if path.suffix == ".tmp"]

    build(tmp_path, scenes=2)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert list(manifest["scenes"]) == ["scene0000_00", "scene0001_00"]
    assert SceneStore.open(store).content_hash() == whole
