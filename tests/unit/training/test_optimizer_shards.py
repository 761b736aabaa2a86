"""Weights and moments go on as they were: same ranks bit by bit, other ranks and stages too."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures import optimizer_shard_ranks as small
from fixtures.forked_jobs import forked_python
from fixtures.repository import ROOT
from fixtures.training_run import lone_ranks
from threedrs.errors import CheckpointError
from threedrs.training import optimizer_shards
from threedrs.training.optimizer_shards import read_shards, write_shards

pytestmark = pytest.mark.slow

TESTS = ROOT / "tests"


def trained(stage: int, steps: int, **options: Any) -> Any:
    engine = small.new_engine(stage, lone_ranks(), **options)
    small.train(engine, lone_ranks(), 0, steps)
    return engine


def reference() -> dict[str, torch.Tensor]:
    """Weights and moments of plain AdamW over all samples at once."""
    model = small.new_model()
    adamw = torch.optim.AdamW(small.groups(model), weight_decay=0.01)
    for step in range(small.TOTAL):
        adamw.zero_grad()
        model(small.samples(step)).square().mean().backward()
        adamw.step()
    state = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            state[f"weights/{name}"] = parameter.detach()
            state |= {f"{m}/{name}": adamw.state[parameter][m] for m in optimizer_shards.MOMENTS}
    return state


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one rank saves, and what two ranks then find and save."""
    folder = tmp_path_factory.mktemp("shares")
    for stage in small.STAGES:
        engine = trained(stage, small.SAVED)
        write_shards(engine, folder / f"by-one-{stage}", lone_ranks())
        torch.save(small.output(engine), folder / f"output-{stage}.pt")
    command = [
        "threedrs.distributed.launch",
        "--gpus",
        "2",
        "fixtures.optimizer_shard_ranks",
        str(folder),
    ]
    done = subprocess.run(
        [forked_python(), "-m", *command],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{TESTS}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    ("stage", "options"),
    [(2, {}), (2, {"bfloat16": True}), (3, {}), (3, {"bfloat16": True}), (3, {"offload": True})],
    ids=["zero2", "zero2 bfloat16", "zero3", "zero3 bfloat16", "zero3 offload"],
)
def test_same_ranks_go_on_bit_by_bit(tmp_path, monkeypatch, stage, options):
    monkeypatch.setattr(optimizer_shards, "FILE_BYTES", 200)
    engine = trained(stage, small.SAVED, **options)
    write_shards(engine, tmp_path / "state", lone_ranks())
    assert len(list((tmp_path / "state").iterdir())) > 2

    resumed = small.new_engine(stage, lone_ranks(), **options, seed=1)
    read_shards(resumed, tmp_path / "state", lone_ranks(), small.SAVED)
    assert torch.equal(small.output(resumed), small.output(engine))
    for one in (engine, resumed):
        small.train(one, lone_ranks(), small.SAVED, small.TOTAL)

    ours, theirs = small.whole_state(resumed), small.whole_state(engine)
    assert len(ours) == 12
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("stage", small.STAGES)
def test_before_the_first_step_there_are_weights_and_no_moments(tmp_path, stage):
    write_shards(small.new_engine(stage, lone_ranks()), tmp_path / "state", lone_ranks())

    resumed = small.new_engine(stage, lone_ranks(), seed=1)
    read_shards(resumed, tmp_path / "state", lone_ranks(), 0)
    small.train(resumed, lone_ranks(), 0, small.TOTAL)

    assert_close(small.whole_state(resumed), reference())


@pytest.mark.parametrize("stage", small.STAGES)
@pytest.mark.parametrize("saved", small.STAGES)
def test_two_ranks_go_on_from_one(folder, saved, stage):
    first, second = (torch.load(folder / f"found{rank}.pt") for rank in range(2))
    output = torch.load(folder / f"output-{saved}.pt")

    for found in (first, second):
        assert torch.equal(found[f"output-{saved}-{stage}"], output)
        assert_close(found[f"whole-{saved}-{stage}"], reference())


@pytest.mark.parametrize("stage", small.STAGES)
@pytest.mark.parametrize("saved", small.STAGES)
def test_one_rank_goes_on_from_two(folder, saved, stage):
    engine = small.new_engine(stage, lone_ranks(), seed=1)
    read_shards(engine, folder / f"by-two-{saved}", lone_ranks(), small.SAVED)
    weights = torch.load(folder / "found0.pt")[f"saved-{saved}"]
    plain = small.new_model()
    values = {n.removeprefix("weights/"): v for n, v in weights.items() if n.startswith("weights")}
    plain.load_state_dict(values, strict=False)
    assert torch.equal(small.output(engine), plain(small.samples(99)))

    small.train(engine, lone_ranks(), small.SAVED, small.TOTAL)

    assert_close(small.whole_state(engine), reference())


def test_a_rank_holds_its_share_only(folder):
    sizes = {
        stage: sorted(file.stat().st_size for file in (folder / f"by-two-{stage}").iterdir())
        for stage in small.STAGES
    }
    trained_values = sum(
        parameter.numel() for parameter in small.new_model().parameters() if parameter.requires_grad
    )
    for files in sizes.values():
        assert len(files) == 2
        assert sum(files) < 12 * trained_values + 2 * 2000  # and headers


def test_lost_file_is_named_with_the_parameter(folder, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    name = "rank-00000-000.safetensors"
    (state / name).write_bytes((folder / "by-two-3" / name).read_bytes())

    with pytest.raises(
        CheckpointError, match=r"state: has \d+ of the elements 0 to \d+ of weights/layers\.\d"
    ):
        read_shards(small.new_engine(3, lone_ranks()), state, lone_ranks(), small.SAVED)
