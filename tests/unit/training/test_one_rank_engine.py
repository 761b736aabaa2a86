"""One rank's own engine takes the steps that DeepSpeed's ZeRO-2 takes, and saves the same state."""

import dataclasses

import pytest
import torch

from fixtures.training_run import lone_ranks
from fixtures.training_steps import SUPERVISION, plans, settings, step, tiny_student
from fixtures.training_steps import reader as reader
from threedrs.training.engine import build_engine
from threedrs.training.one_rank_engine import OneRankEngine
from threedrs.training.optimizer_shards import MOMENTS, read_shards, write_shards

pytestmark = pytest.mark.slow

BATCHES = [plans((0, 1, 2)), plans((2, 0), (1,)), plans((0,), (1,), (2,))]


def engine_of(ranks: int, precision: str = "float32", clip: float = 1.0):
    """Return a new engine; of two ranks it is ZeRO-2, which here shares with nobody."""
    recipe = settings(
        global_batch=6,
        pack=1,
        learning_rate=1e-3,
        weight_decay=0.1,
        warmup_fraction=0.5,
        gradient_clip=clip,
        precision=precision,
    )
    several = dataclasses.replace(lone_ranks(), count=ranks)
    return build_engine(tiny_student(), recipe, SUPERVISION, several, total_steps=4)


def run(engine, reader, batches):
    return [step(engine, reader, batch) for batch in batches]


def weights(engine):
    parameters = engine.module.named_parameters()
    return {name: parameter.detach().clone() for name, parameter in parameters}


@pytest.mark.parametrize("clip", [1e9, 0.5], ids=["whole gradient", "clipped"])
@pytest.mark.parametrize(
    ("precision", "near", "later"), [("float32", 1e-5, 1e-3), ("bfloat16", 1e-2, 0.1)]
)
def test_steps_are_those_of_zero2(reader, precision, near, later, clip):
    ours, theirs = engine_of(1, precision, clip), engine_of(2, precision, clip)
    assert isinstance(ours, OneRankEngine)
    assert not isinstance(theirs, OneRankEngine)

    steps = zip(run(ours, reader, BATCHES), run(theirs, reader, BATCHES), strict=True)
    for number, (own, reference) in enumerate(steps):
        # AdamW divides by the size of a gradient: one that is rounding alone moves either way, and
        # later steps see that.
        off = later if number else near
        assert own.sums == pytest.approx(reference.sums, rel=off, abs=off)
        assert own.grad_norm == pytest.approx(reference.grad_norm, rel=off)
    assert ours.get_lr() == theirs.get_lr()
    start, found, expected = (
        torch.cat([value.float().flatten() for value in one.values()])
        for one in (weights(engine_of(1, precision)), weights(ours), weights(theirs))
    )
    # A key's bias, for one, has a gradient that is rounding alone, so few elements differ fully.
    assert (found - expected).norm() <= 0.1 * (expected - start).norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_either_engine_goes_on_from_the_state_of_the_other(reader, tmp_path, precision):
    ours, theirs = engine_of(1, precision), engine_of(2, precision)
    run(ours, reader, BATCHES[:2])
    write_shards(ours, tmp_path / "state", lone_ranks())

    read_shards(theirs, tmp_path / "state", lone_ranks(), step=2)

    for name, value in weights(ours).items():
        assert torch.equal(weights(theirs)[name], value), name
    write_shards(theirs, tmp_path / "back", lone_ranks())
    again = engine_of(1, precision)
    read_shards(again, tmp_path / "back", lone_ranks(), step=2)
    kept, back = ours.optimizer, again.optimizer
    pairs = zip(
        kept.single_partition_of_fp32_groups, back.single_partition_of_fp32_groups, strict=True
    )
    for own, found in pairs:
        assert torch.equal(own, found)
        for moment in MOMENTS:
            assert torch.equal(
                kept.optimizer.state[own][moment], back.optimizer.state[found][moment]
            )


def test_gradients_of_a_group_lie_end_to_end(reader):
    engine = engine_of(1)
    flat = engine.optimizer
    assert sum(map(torch.numel, flat.gradients)) == sum(
        parameter.numel() for parameter in engine.module.parameters() if parameter.requires_grad
    )
    engine.backward(engine(reader.read(BATCHES[0][0]), 1.0)[0], scale_wrt_gas=False)
    for parameters, gradient in zip(flat.bit16_groups, flat.gradients, strict=True):
        expected = torch.cat([parameter.grad.flatten() for parameter in parameters])
        assert torch.equal(gradient, expected)
        assert gradient.abs().sum() > 0
