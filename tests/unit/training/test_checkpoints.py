"""Training checkpoints: whole or not at all, verified, set aside rather than lost."""

import dataclasses
import errno
import json
import os
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from fixtures.training_run import lone_ranks
from threedrs.errors import CheckpointError
from threedrs.io import files
from threedrs.io.files import sha256_of_file
from threedrs.training import checkpoints
from threedrs.training.checkpoints import (
    Progress,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

RECIPE = {"train.learning_rate": 0.1, "instruction mix": "abc"}


class PlainEngine:
    """Stands for DeepSpeed's engine: one file of state, or a disk that is full."""

    def __init__(self, state: str = "weights", full: type[Exception] | None = None) -> None:
        self.state = state
        self.full = full
        self.optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 0.9)


@pytest.fixture(autouse=True)
def plain_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(engine: PlainEngine, folder: Path, ranks) -> list[Path]:
        folder.mkdir()
        (folder / "weights").write_text(engine.state[: 3 if engine.full else None])
        if engine.full:
            raise engine.full("No space left on device")
        return [folder / "weights"]

    def read(engine: PlainEngine, folder: Path, ranks, step: int) -> None:
        engine.state = f"{(folder / 'weights').read_text()}, step {step}"

    monkeypatch.setattr(checkpoints, "write_shards", write)
    monkeypatch.setattr(checkpoints, "read_shards", read)


def save(folder, step, *, engine=None, recipe=RECIPE, keep=2):
    progress = Progress(step=step, samples=8 * step, tokens=100 * step, seconds=float(step))
    return save_checkpoint(
        engine or PlainEngine(f"weights {step}"),
        folder,
        progress,
        recipe,
        keep=keep,
        ranks=lone_ranks(),
    )


def find(folder, *, recipe=RECIPE):
    warnings: list[str] = []
    return find_checkpoint(folder, recipe, warnings.append), warnings


def test_newest_are_kept_and_the_newest_is_found(tmp_path):
    for step in (50, 100, 150):
        save(tmp_path, step)

    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000150", "step-00000100"]
    assert find(tmp_path) == (tmp_path / "step-00000150", [])


def test_progress_state_and_random_numbers_come_back(tmp_path):
    path = save(tmp_path, 50)
    expected = random.random(), np.random.random(), torch.rand(3)  # noqa: NPY002
    engine = PlainEngine("other")
    engine.optimizer.param_groups[0]["lr"] = 0.1

    # Drawn after saving; loading goes back to the state at saving.
    progress = load_checkpoint(engine, path, lone_ranks())

    assert progress == Progress(step=50, samples=400, tokens=5000, seconds=50.0)
    assert engine.state == "weights 50, step 50"
    assert engine.optimizer.param_groups[0]["lr"] == 0.45
    assert (random.random(), np.random.random()) == expected[:2]  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected[2])


def test_empty_folder_has_no_checkpoint(tmp_path):
    assert find(tmp_path / "none") == (None, [])


def unreadable_in(folder, file):
    if file.is_relative_to(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
    return sha256_of_file(file)


@pytest.mark.parametrize(
    "damage", ["changed", "removed", "manifest", "no hash", "no files", "unreadable"]
)
def test_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, damage, monkeypatch):
    save(tmp_path, 50)
    newest = save(tmp_path, 100)
    if damage == "changed":
        (newest / "state/weights").write_text("weights 1OO")
    elif damage == "removed":
        (newest / "state/weights").unlink()
    elif damage == "unreadable":  # as a disk with a bad block answers
        monkeypatch.setattr(files, "sha256_of_file", partial(unreadable_in, newest))
    else:
        manifest = newest / "manifest.json"
        whole = json.loads(manifest.read_text())
        texts = {
            "manifest": '{"format_version": 3, "st',
            "no hash": json.dumps({"format_version": 3}),
            "no files": json.dumps(whole | {"files": None}),
        }
        manifest.write_text(texts[damage])

    found, warnings = find(tmp_path)

    assert found == tmp_path / "step-00000050"
    assert len(warnings) == 1
    assert "step-00000100 is not used" in warnings[0]
    assert (tmp_path / "damaged/step-00000100").is_dir()


def test_changed_recipe_starts_afresh_says_why_and_loses_nothing(tmp_path):
    save(tmp_path, 50)
    save(tmp_path, 100)

    found, warnings = find(tmp_path, recipe=RECIPE | {"train.learning_rate": 0.2})

    assert found is None
    assert "train.learning_rate (0.1 -> 0.2)" in warnings[0]
    (stale,) = tmp_path.glob("stale-*")
    assert len(stale.name) == len("stale-") + 8
    assert sorted(path.name for path in stale.iterdir()) == ["step-00000050", "step-00000100"]


def test_a_recipe_that_comes_back_finds_its_checkpoints_and_log(tmp_path):
    save(tmp_path, 50)
    save(tmp_path, 100)
    (tmp_path / "log.jsonl").write_text("rows of the first recipe")
    other = RECIPE | {"train.learning_rate": 0.2}
    assert find(tmp_path, recipe=other)[0] is None
    assert not (tmp_path / "log.jsonl").exists()
    (tmp_path / "log.jsonl").write_text("rows of the other")

    found, warnings = find(tmp_path)

    assert found == tmp_path / "step-00000100"
    assert "moves back" in warnings[-1]
    assert (tmp_path / "log.jsonl").read_text() == "rows of the first recipe"
    assert not list(tmp_path.glob("stale-*"))


def test_the_other_recipe_keeps_its_own_when_the_first_comes_back(tmp_path):
    save(tmp_path, 50)
    other = RECIPE | {"train.learning_rate": 0.2}
    find(tmp_path, recipe=other)
    save(tmp_path, 20, recipe=other)
    (tmp_path / "log.jsonl").write_text("rows of the other")

    assert find(tmp_path)[0] == tmp_path / "step-00000050"
    assert find(tmp_path, recipe=other)[0] == tmp_path / "step-00000020"
    assert (tmp_path / "log.jsonl").read_text() == "rows of the other"


def test_new_rank_takes_the_random_numbers_of_an_old_one(tmp_path):
    path = save(tmp_path, 50)
    expected = torch.rand(3)

    load_checkpoint(PlainEngine(), path, dataclasses.replace(lone_ranks(), rank=2, count=4))

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_full_disk_leaves_the_older_ones(tmp_path, error):
    save(tmp_path, 50, keep=1)

    with pytest.raises(CheckpointError, match=r"step-00000100: cannot be written .*No space left"):
        save(tmp_path, 100, engine=PlainEngine(full=error), keep=1)

    assert [path.name for path in tmp_path.iterdir()] == ["step-00000050"]
    assert find(tmp_path) == (tmp_path / "step-00000050", [])


def test_a_lost_loader_is_no_full_disk(tmp_path):
    class Lost(RuntimeError):
        def __init__(self, text):
            super().__init__("DataLoader worker (pid 7) is killed by signal: Killed.")

    with pytest.raises(RuntimeError, match=r"^DataLoader worker"):
        save(tmp_path, 100, engine=PlainEngine(full=Lost), keep=1)

    assert list(tmp_path.iterdir()) == []


def test_leftover_of_a_killed_save_is_removed(tmp_path):
    save(tmp_path, 50)
    (tmp_path / ".step-00000100.tmp/state").mkdir(parents=True)

    assert find(tmp_path)[0] == tmp_path / "step-00000050"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000050"]


def test_manifest_names_every_file(tmp_path):
    path = save(tmp_path, 50)

    manifest = json.loads((path / "manifest.json").read_text())
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert manifest["step"] == 50
    assert manifest["ranks"] == 1
