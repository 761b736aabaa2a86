"""Results damaged on disk are found by `threedrs verify`, and they alone are remade."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from fixtures.checkout import Checkout, copy_finished
from fixtures.forked_jobs import forked_python
from fixtures.stale_jobs import TEACHER, contents, predicted, really_run, trained
from threedrs.scenes.store import SceneStore


def flip(path: Path, after: bytes = b"") -> None:
    """Change the byte ``after`` some others, or in the middle; the date stays, as on a bad disk."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[content.index(after) + len(after) if after else len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def verify(checkout: Checkout, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [forked_python(), "-m", "threedrs", "verify", *options],
        cwd=checkout.folder,
        env=os.environ | {"PYTHONPATH": str(checkout.folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_damaged_results_are_found_and_they_alone_remade(
    finished: Checkout, tmp_path: Path
) -> None:
    checkout = copy_finished(finished, tmp_path / "checkout")
    results = checkout.folder / "results"
    shard = results / "features" / TEACHER / "train-000.zarr"
    damaged = [
        next((results / "scenes" / "scene0001_00.zarr" / "rgb" / "c").rglob("0/0/0/0")),
        results / "scenes" / "shards" / "val-000.json",
        next((shard / "scene0000_00" / "features" / "c").rglob("0/0/0/0")),
        results / "instructions" / "scanqa_val.jsonl",
        results / "instructions" / "mixes" / "full.jsonl",
        results / "train" / "3drs" / "model" / "model.safetensors",
        results / "eval" / "baseline" / "scanqa" / "predictions.jsonl",
        results / "eval" / "baseline" / "sqa3d" / "metrics.json",
    ]
    before = {path: path.read_bytes() for path in damaged}
    kept = {
        folder: contents(results / folder)
        for folder in ("scenes/scene0000_00.zarr", "train/baseline/model", "eval/3drs/sqa3d")
    }
    for path in damaged:
        # The manifest stays JSON, and what it says of the stores' content stays true.
        flip(path, b'"frames": ' if path == damaged[1] else b"")
    damaged[4].write_bytes(before[damaged[4]][:-100])  # cut short
    found = verify(checkout, "--repair")
    assert found.returncode == 1
    lines = found.stdout.splitlines()
    names = ["scene0001_00.zarr: array rgb", "val-000.json", "features", "scanqa_val.jsonl"]
    names += ["full.jsonl", "model.safetensors", "predictions.jsonl", "metrics.json"]
    start = next(number for number, line in enumerate(lines) if line.startswith("Removed."))
    assert [sum(name in line for line in lines[:start]) for name in names] == [1] * len(names)
    assert start == len(names)
    commands = [shlex.split(line) for line in lines[start + 1 :]]
    assert {tuple(command[:3]) for command in commands} == {("snakemake", "--cores", "all")}
    assert commands.pop()[3:] == ["all"]
    commands = [targets for _, _, _, *targets in commands]
    assert sum(map(len, commands)) == len(names)
    for targets in commands[:-3]:
        really_run(checkout, *targets)
    for path in damaged[:5]:
        assert path.read_bytes() == before[path], path
    assert {folder: contents(results / folder) for folder in kept} == kept
    assert commands[-3:] == [
        ["results/train/3drs/model.json"],
        ["results/eval/baseline/scanqa/predictions.jsonl"],
        ["results/eval/baseline/sqa3d/metrics.json"],
    ]
    rest = trained("3drs") | predicted(["baseline"], ["scanqa"]) | {"score baseline sqa3d"}
    assert checkout.planned() == rest
    assert "no damage found" in verify(checkout).stdout


def test_a_removed_scene_store_is_noticed_and_it_alone_remade(
    finished: Checkout, tmp_path: Path
) -> None:
    checkout = copy_finished(finished, tmp_path / "checkout")
    scenes = checkout.folder / "results" / "scenes"
    store = scenes / "scene0002_00.zarr"
    content = SceneStore.open(store).content_hash()
    manifests = {path.name: path.read_bytes() for path in (scenes / "shards").iterdir()}
    shutil.rmtree(store)
    said = checkout.snakemake("all", "-n")
    assert said.returncode != 0
    assert "Traceback" not in said.stdout
    (line,) = (line for line in said.stdout.splitlines() if "removed, though listed" in line)
    assert line.startswith("threedrs: error: results/scenes/scene0002_00.zarr: ")
    assert "`threedrs verify --repair`" in line

    lines = verify(checkout, "--repair").stdout.splitlines()
    assert lines[0].endswith("results/scenes/scene0002_00.zarr: there is no scene store here")
    assert lines[-2:] == [
        "snakemake --cores all results/scenes/shards/val-000.json",
        "snakemake --cores all all",
    ]
    really_run(checkout, "results/scenes/shards/val-000.json")
    assert SceneStore.open(store).content_hash() == content
    found = {path.name: path.read_bytes() for path in (scenes / "shards").iterdir()}
    assert found == manifests
    assert checkout.planned() == set()
