"""What would fit: each remedy's own estimate fits, and the cheapest of its kind stands."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.repository import ROOT
from threedrs.config.load import load_config, resolve_run
from threedrs.config.yaml_files import merged
from threedrs.planning.remedies import what_fits
from threedrs.planning.training import Machine, plan_run


def tiny(**train: Any) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = merged([], "plan")
    config["train"] |= {"pack": 4, "global_batch": 8, **train}
    return resolve_run(load_config(config, files=False), "3drs")


@pytest.fixture
def small_buckets(tmp_path: Path) -> str:
    """Return ZeRO-2 with buckets, which two GPUs have and one has not, that are small."""
    file = tmp_path / "zero2.json"
    file.write_text('{"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}}')
    return str(file)


def remedies(config: dict[str, Any], machine: Machine) -> list[str]:
    plan = plan_run(config, machine, teacher_channels=8, samples=80)
    found = what_fits(config, machine, plan, teacher_channels=8, samples=80)
    return [change.partition(" (")[0] for change in found]


def gigabytes(config: dict[str, Any], machine: Machine) -> float:
    return plan_run(config, machine, teacher_channels=8, samples=80).total


def test_single_changes_are_found_by_trying_all(small_buckets: str) -> None:
    config = tiny()
    config["execution"]["deepspeed"] = small_buckets
    alone = Machine(gpus=1, memory=1e15)
    # A byte less than the run takes: whatever saves anything is enough.
    machine = Machine(gpus=1, memory=gigabytes(config, alone) - 1)
    found = remedies(config, machine)
    assert "train.pack: 2" in found
    assert "--gpus 2" in found
    assert "--gpu RTX4090" in found
    assert "execution.deepspeed: config/deepspeed/zero3_offload.json" in found


def test_what_is_not_enough_alone_comes_with_the_lean_recipe(small_buckets: str) -> None:
    config, lean = tiny(), tiny(pack=1)
    config["execution"]["deepspeed"] = lean["execution"]["deepspeed"] = small_buckets
    lean["execution"] |= {"gradient_checkpointing": True, "kept_layers": 0}
    two = Machine(gpus=2, memory=1e15)
    # Two GPUs with the lean recipe fit exactly; two alone, or the recipe alone, do not.
    needed = gigabytes(lean, two)
    assert gigabytes(config, two) > needed
    assert gigabytes(lean, Machine(gpus=1, memory=1e15)) > needed
    found = remedies(config, Machine(gpus=1, memory=needed))
    words = next(words for words in found if "--gpus" in words)
    assert words.startswith("--gpus 2, ")
    assert "train.pack: 1" in words


def test_nothing_fits_a_gpu_without_memory() -> None:
    found = remedies(tiny(), Machine(gpus=1, memory=1.0))
    assert found == ["--gpu RTX4090"]


def test_as_many_layers_are_kept_as_fit() -> None:
    config = tiny()
    config["execution"] |= {"gradient_checkpointing": True, "kept_layers": 3}
    two = {**config, "execution": {**config["execution"], "kept_layers": 2}}
    found = remedies(config, Machine(gpus=1, memory=gigabytes(two, Machine(gpus=1, memory=1e15))))
    assert found[0] == "execution.kept_layers: 2"
