"""Training checkpoints: whole or not at all, verified, set aside rather than lost."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from training_run import lone_ranks

from threedrs.errors import CheckpointError
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

    def __init__(self, state: str = "weights", full: bool = False) -> None:
        self.state = state
        self.full = full

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        path = Path(folder) / tag / "weights.pt"
        path.parent.mkdir()
        path.write_text(self.state[: 3 if self.full else None])
        if self.full:
            raise OSError(28, "No space left on device")

    def load_checkpoint(self, folder: str, tag: str) -> tuple[str, dict]:
        self.state = (Path(folder) / tag / "weights.pt").read_text()
        return folder, {}


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


def find(folder, *, recipe=RECIPE, ranks=1):
    warnings: list[str] = []
    return find_checkpoint(folder, recipe, ranks, warnings.append), warnings


def test_newest_are_kept_and_the_newest_is_found(tmp_path):
    for step in (50, 100, 150):
        save(tmp_path, step)

    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000150", "step-00000100"]
    assert find(tmp_path) == (tmp_path / "step-00000150", [])


def test_progress_state_and_random_numbers_come_back(tmp_path):
    path = save(tmp_path, 50)
    expected = random.random(), np.random.random(), torch.rand(3)  # noqa: NPY002
    engine = PlainEngine("other")

    # Drawn after saving; loading goes back to the state at saving.
    progress = load_checkpoint(engine, path, lone_ranks())

    assert progress == Progress(step=50, samples=400, tokens=5000, seconds=50.0)
    assert engine.state == "weights 50"
    assert (random.random(), np.random.random()) == expected[:2]  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected[2])


def test_empty_folder_has_no_checkpoint(tmp_path):
    assert find(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("damage", ["changed", "removed", "manifest"])
def test_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, damage):
    save(tmp_path, 50)
    newest = save(tmp_path, 100)
    if damage == "changed":
        (newest / "state/weights.pt").write_text("weights 1OO")
    elif damage == "removed":
        (newest / "state/weights.pt").unlink()
    else:
        (newest / "manifest.json").write_text('{"format_version": 1, "st')

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


def test_other_number_of_ranks_is_refused_by_name(tmp_path):
    save(tmp_path, 50)

    with pytest.raises(CheckpointError, match=r"saved by 1 ranks, this run has 4; go on with 1"):
        find(tmp_path, ranks=4)


def test_full_disk_leaves_the_older_ones(tmp_path):
    save(tmp_path, 50, keep=1)

    with pytest.raises(CheckpointError, match=r"step-00000100: cannot be written .*No space left"):
        save(tmp_path, 100, engine=PlainEngine(full=True), keep=1)

    assert [path.name for path in tmp_path.iterdir()] == ["step-00000050"]
    assert find(tmp_path) == (tmp_path / "step-00000050", [])


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
