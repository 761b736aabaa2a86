"""Training itself: settings, log rows, and one exact optimizer step."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.training_run import ROOT, lone_ranks
from fixtures.training_steps import SUPERVISION, plans, settings, step, tiny_student, whole_gradient
from fixtures.training_steps import reader as reader
from threedrs.training.engine import build_engine
from threedrs.training.run_log import read_rows
from threedrs.training.step import NonFiniteError, step_row

pytestmark = pytest.mark.slow


# Settings


# Log rows


def test_row_holds_means_over_the_samples_of_each_kind():
    sums = {"loss": 8.0, "samples": 4, "text": 6.0, "texts": 3, "grounding": 2.0, "groundings": 1}
    row = step_row(5, 20, sums | {"supervision": 1.0}, rate=0.1, grad_norm=2.0, speed=3.0)

    assert (row["loss"], row["text"], row["grounding"], row["supervision"]) == (2, 2, 2, 0.25)
    none = step_row(
        5, 20, sums | {"groundings": 0, "supervision": 1.0}, rate=0.1, grad_norm=2.0, speed=3.0
    )
    assert none["grounding"] is None


def test_rows_past_the_checkpoint_and_a_cut_line_are_dropped(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')

    assert read_rows(log, 2) == [{"step": 1}, {"step": 2}]
    assert read_rows(log) == [{"step": 1}, {"step": 2}, {"step": 3}]
    assert read_rows(tmp_path / "none.jsonl") == []


# One optimizer step


def new_engine(student, ranks=1, **changes):
    recipe = settings(global_batch=6, pack=1, warmup_fraction=0.0, gradient_clip=1e9, **changes)
    several = dataclasses.replace(lone_ranks(), count=ranks)
    return build_engine(student, recipe, SUPERVISION, several, total_steps=10)


# ZeRO-2 of one rank is our own engine. Of two, which are this process alone, it is DeepSpeed's.
ENGINES = [("zero2", 1), ("zero2", 2), ("zero3", 1)]
REPEAT = [*plans((2, 0), (1,)), *plans((1,), weight=0.0)]


@pytest.mark.parametrize(
    ("stage", "ranks", "micro_steps"),
    [
        ("zero2", 1, plans((0, 1, 2))),
        ("zero2", 1, plans((0,), (1,), (2,))),
        ("zero2", 1, REPEAT),
        ("zero2", 2, REPEAT),
        ("zero3", 1, plans((0, 2), (1,))),
    ],
    ids=["one pack", "one sample a pack", "repeat of weight zero", "zero2 of DeepSpeed", "zero3"],
)
def test_gradient_is_the_mean_over_the_samples(reader, stage, ranks, micro_steps):
    lone_ranks()
    reference = tiny_student()
    for plan in plans((0,), (1,), (2,)):
        losses = reference(reader.read(plan), SUPERVISION)
        loss = losses.text_K[0] + losses.grounding_K[0] + 0.5 * losses.supervision
        (loss / 3).backward()
    student = tiny_student()
    path = str(ROOT / f"config/deepspeed/{stage}.json")
    engine = new_engine(student, ranks=ranks, deepspeed=path)
    gradients = {}
    update = engine.step

    def keep_gradients():
        for name, parameter in student.named_parameters():
            gradients[name] = whole_gradient(parameter).clone()
        update()

    engine.step = keep_gradients
    outcome = step(engine, reader, micro_steps)

    norm = torch.stack([p.grad.norm() for p in reference.parameters()]).norm()
    for name, parameter in reference.named_parameters():
        error = (gradients[name] - parameter.grad).norm()
        # A key's bias shifts all scores of a query alike: its gradient is rounding, not a number.
        assert error <= 1e-5 * parameter.grad.norm() + 1e-8 * norm, name
    assert outcome.grad_norm == pytest.approx(float(norm), rel=1e-5)
    assert (outcome.sums["samples"], outcome.sums["texts"], outcome.sums["groundings"]) == (3, 2, 1)


def test_frozen_parts_stay_and_groups_have_their_rates(reader):
    student = tiny_student()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    rates = {"learning_rate": 2.0e-3, "learning_rate_vision_tower": 1.0e-3}
    engine = new_engine(student, tunable=["vision_tower", "heads"], **rates)

    step(engine, reader, plans((0, 1, 2)))

    changed = {
        name.split(".")[0]
        for name, value in student.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"vision_tower", "grounding_head", "proj_3d"}
    assert [group["initial_lr"] for group in engine.optimizer.param_groups] == [1.0e-3, 2.0e-3]


def test_loss_that_is_not_finite_names_samples_and_changes_nothing(reader):
    student = tiny_student()
    engine = new_engine(student)
    student.register_forward_hook(
        lambda module, inputs, losses: losses._replace(
            text_K=losses.text_K / (inputs[0].samples[0].id != "sample-1")
        )
    )
    before = student.projector[0].weight.clone()

    with pytest.raises(NonFiniteError, match=r"the loss is not finite \(rank 0: sample-1\)"):
        step(engine, reader, plans((0,), (1,), (2,)))

    assert torch.equal(student.projector[0].weight, before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("stage", "ranks"), ENGINES)
def test_gradient_that_is_not_finite_changes_nothing(reader, stage, ranks, precision):
    student = tiny_student()
    path = str(ROOT / f"config/deepspeed/{stage}.json")
    engine = new_engine(student, ranks=ranks, deepspeed=path, precision=precision)
    before = [deepest(engine), *(weights.detach().clone() for weights in student.parameters())]
    student.newline_tokens.register_full_backward_hook(
        lambda module, inputs, outputs: tuple(value * float("inf") for value in inputs)
    )

    with pytest.raises(NonFiniteError, match=r"the gradient is not finite \(rank 0: sample-0"):
        step(engine, reader, plans((0, 1, 2)))

    for found, expected in zip([deepest(engine), *student.parameters()], before, strict=True):
        assert torch.equal(found, expected)


class Reductions(TorchDispatchMode):
    """Counts largest and smallest elements that are looked for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.amax.default, torch.ops.aten.amin.default)
        return func(*args, **(kwargs or {}))


def test_step_of_several_ranks_does_not_look_into_each_gradient(reader):
    """That the norm is finite says it all; looking takes 13 kernels a parameter."""
    engine = new_engine(tiny_student(), ranks=2, precision="bfloat16")
    with Reductions() as reductions:
        step(engine, reader, plans((0, 1, 2)))
    assert reductions.count == 0


def deepest(engine):
    """Return the float32 weights of the projector's group, or of its first layer."""
    from deepspeed.utils import safe_get_full_fp32_param

    if engine.zero_optimization_stage() == 3:
        return safe_get_full_fp32_param(engine.module.student.projector[0].weight).clone()
    return engine.optimizer.single_partition_of_fp32_groups[1].detach().clone()


def test_bfloat16_keeps_buffers_and_master_weights_in_float32(reader):
    student = tiny_student()
    engine = new_engine(student, precision="bfloat16")

    outcome = step(engine, reader, plans((0, 1, 2)))

    assert student.projector[0].weight.dtype == torch.bfloat16
    assert student.language_model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert deepest(engine).dtype == torch.float32
    assert np.isfinite(outcome.sums["loss"])
