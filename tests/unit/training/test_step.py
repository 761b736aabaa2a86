"""Training itself: settings, log rows, and one exact optimizer step."""

import json

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.training_run import (
    ROOT,
    lone_ranks,
    write_run,
)
from fixtures.training_steps import SUPERVISION, plans, settings, step, tiny_student
from fixtures.training_steps import reader as reader
from threedrs.config.schema import Execution
from threedrs.errors import ConfigError
from threedrs.io.files import write_json
from threedrs.training.recipe import fingerprint, fingerprint_changes, is_offloaded, read_run
from threedrs.training.run_log import read_rows
from threedrs.training.step import (
    NonFiniteError,
    build_engine,
    deepspeed_config,
    step_row,
    zero_init,
)

pytestmark = pytest.mark.slow


# Settings


def test_accumulation_counts_samples_whatever_packing_and_ranks():
    assert settings(global_batch=16, pack=1).accumulation(8) == 2
    assert settings(global_batch=16, pack=8).accumulation(2) == 1


@pytest.mark.parametrize(
    ("global_batch", "pack", "ranks", "remedy"),
    [
        (16, 3, 2, "with 2 ranks train.pack may be 1, 2, 4, 8"),
        (16, 1, 3, "train.global_batch may be 15 or 18, or another multiple of 3"),
        (2, 1, 4, "train.global_batch may be 4, or another multiple of 4"),
    ],
)
def test_batch_that_does_not_divide_lists_the_choices(global_batch, pack, ranks, remedy):
    with pytest.raises(ConfigError, match=remedy):
        settings(global_batch=global_batch, pack=pack).accumulation(ranks)


def test_a_run_is_read_as_it_is_to_be_carried_out_now(tmp_path):
    file = write_run(tmp_path, keep=3)
    whole = json.loads(file.read_text())
    assert read_run(file, '{"workers": 5}') == whole | {
        "execution": whole["execution"] | {"workers": 5}
    }
    del whole["execution"]  # the workflow hands it over
    write_json(file, whole)
    assert read_run(file, '{"keep": 4}') == whole | {"execution": Execution(keep=4).to_json()}
    for said, message in (
        ("{", "--execution: is not JSON"),
        ("[]", "--execution: expected a JSON object"),
        ('{"kep": 4}', "execution.kep is not a key; did you mean keep"),
        ('{"keep": 0}', "execution.keep: 0 is less than the minimum of 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_run(file, said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "train.epochs: 0 is less than the minimum of 1"),
        ({"precision": "fp16"}, "train.precision is 'fp16'; choose one of: float32, bfloat16"),
        (
            {"tunable": ["head"]},
            "train.tunable.0 is 'head'; choose one of: vision_tower",
        ),
        ({"lorra": {}}, "train.lorra is not a key; did you mean lora"),
        ({"lora": {"rank": 1}}, "train.lora: 'alpha' is a required property"),
        ({"wandb": {}}, "wandb: 'project' is a required property"),
        ({"warmup_fraction": 1.5}, "1.5 is greater than the maximum of 1"),
        ({"eval_every": 0}, "train.eval_every: 0 is less than the minimum of 1"),
    ],
)
def test_bad_settings_name_key_and_choices(change, message):
    with pytest.raises(ConfigError, match=message):
        settings(**change)


def test_deepspeed_file_may_not_set_what_the_recipe_sets(tmp_path):
    path = tmp_path / "mine.json"
    write_json(path, {"zero_optimization": {"stage": 2}, "train_batch_size": 3})
    with pytest.raises(ConfigError, match=r"mine.json: remove train_batch_size"):
        deepspeed_config(settings(deepspeed=str(path)), 1)

    write_json(path, {"zero_optimization": {"stage": 1}})
    with pytest.raises(ConfigError, match=r"stage is 1; expected 2 or 3"):
        deepspeed_config(settings(deepspeed=str(path)), 1)


@pytest.mark.parametrize(
    ("keys", "zero", "message"),
    [
        ({"communication_data_type": "fp16"}, {}, "remove communication_data_type; it may hold"),
        ({"aio": {}}, {}, "remove aio; it may hold"),
        ({}, {"zero_quantized_gradients": True}, "remove zero_optimization.zero_quantized_grad"),
        ({}, {"offload_optimizer": {"device": "nvme"}}, "offload_optimizer: .* set device to cpu"),
        ({}, {"offload_param": {"device": "cpu", "ratio": 0.5}}, "offload_param: .* remove ratio"),
        ({}, {"offload_param": "cpu"}, "offload_param: .* set device to cpu"),
        ({}, {"stage": 2, "offload_param": {"device": "cpu"}}, "offload_param needs stage 3"),
        ({}, {"compute_grad_norm": False}, "remove zero_optimization.compute_grad_norm"),
    ],
)
def test_deepspeed_file_may_not_change_gradients_or_miss_checkpoints(tmp_path, keys, zero, message):
    path = tmp_path / "mine.json"
    write_json(path, {"zero_optimization": {"stage": 3, **zero}, **keys})
    with pytest.raises(ConfigError, match=rf"mine\.json: .*{message}"):
        deepspeed_config(settings(deepspeed=str(path)), 1)


def test_what_deepspeed_refuses_is_said_before_the_student_is_built(tmp_path):
    path = tmp_path / "mine.json"
    write_json(path, {"zero_optimization": {"stage": 2, "unknown_key": 3}})
    with pytest.raises(
        ConfigError, match=r"mine\.json: zero_optimization\.unknown_key: Extra inputs"
    ):
        zero_init(settings(deepspeed=str(path)), 1)


def test_offload_may_be_null_as_in_deepspeeds_defaults(tmp_path):
    path = tmp_path / "mine.json"
    write_json(path, {"zero_optimization": {"stage": 3, "offload_optimizer": None}})
    assert not is_offloaded(zero_init(settings(deepspeed=str(path)), 1), "optimizer")


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero3_offload"])
def test_own_deepspeed_files_take_the_recipe(name):
    path = ROOT / f"config/deepspeed/{name}.json"
    config = deepspeed_config(settings(deepspeed=str(path), global_batch=16, pack=2), ranks=4)

    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 2
    assert config["gradient_clipping"] == 1.0


def test_fingerprint_sees_the_recipe_and_not_the_operation(tmp_path, monkeypatch):
    config = json.loads(write_run(tmp_path).read_text())
    monkeypatch.chdir(tmp_path)
    before = fingerprint(config, {"scene0000_00": "a"}, {})

    config["train"]["eval_every"] = 3
    config["execution"] |= {"workers": 7, "save_every": 3, "keep": 1, "log_every": 9}
    config["execution"]["max_length"] *= 2  # a guard, whose error says to raise it
    assert fingerprint(config, {"scene0000_00": "a"}, {}) == before
    config["supervision"]["weight"] = 0.25
    changed = fingerprint(config, {"scene0000_00": "b"}, {})
    assert fingerprint_changes(before, changed) == "scene stores, supervision.weight (1.0 -> 0.25)"

    # The hashes tell 1 from 1.0, and null from nothing; so does the reason.
    assert fingerprint_changes({"a.b": 1.0}, {"a.b": 1}) == "a.b (1.0 -> 1)"
    assert fingerprint_changes({}, {"a.b": None}) == "a.b (not there -> None)"

    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1" * 3_000_000)
    config["model"]["path"] = str(tmp_path)
    before = fingerprint(config, {}, {})
    weights.write_bytes(b"1" * 2_999_999 + b"2")
    assert fingerprint_changes(before, fingerprint(config, {}, {})) == "pretrained weights"


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


def new_engine(student, **changes):
    recipe = settings(global_batch=3, pack=1, warmup_fraction=0.0, gradient_clip=1e9, **changes)
    return build_engine(student, recipe, SUPERVISION, lone_ranks(), total_steps=10)


@pytest.mark.parametrize(
    ("stage", "micro_steps"),
    [
        ("zero2", plans((0, 1, 2))),
        ("zero2", plans((0,), (1,), (2,))),
        ("zero2", [*plans((2, 0), (1,)), *plans((1,), weight=0.0)]),
        ("zero3", plans((0, 2), (1,))),
    ],
    ids=["one pack", "one sample a pack", "with a repeat of weight zero", "zero3"],
)
def test_gradient_is_the_mean_over_the_samples(reader, stage, micro_steps):
    lone_ranks()
    from deepspeed.utils import safe_get_full_grad

    reference = tiny_student()
    for plan in plans((0,), (1,), (2,)):
        losses = reference(reader.read(plan), SUPERVISION)
        loss = losses.text_K[0] + losses.grounding_K[0] + 0.5 * losses.supervision
        (loss / 3).backward()
    student = tiny_student()
    path = str(ROOT / f"config/deepspeed/{stage}.json")
    engine = new_engine(student, deepspeed=path)
    gradients = {}
    update = engine.step

    def keep_gradients():
        for name, parameter in student.named_parameters():
            gradients[name] = safe_get_full_grad(parameter).clone()
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
    engine = new_engine(student, tunable=["vision_tower", "heads"], learning_rate=2.0e-3)

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
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_gradient_that_is_not_finite_changes_nothing(reader, stage, precision):
    student = tiny_student()
    path = str(ROOT / f"config/deepspeed/{stage}.json")
    engine = new_engine(student, deepspeed=path, precision=precision)
    before = deepest(student)
    student.newline_tokens.register_full_backward_hook(
        lambda module, inputs, outputs: tuple(value * float("inf") for value in inputs)
    )

    with pytest.raises(NonFiniteError, match=r"the gradient is not finite \(rank 0: sample-0"):
        step(engine, reader, plans((0, 1, 2)))

    assert torch.equal(deepest(student), before)


class Reductions(TorchDispatchMode):
    """Counts largest and smallest elements that are looked for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.amax.default, torch.ops.aten.amin.default)
        return func(*args, **(kwargs or {}))


def test_step_does_not_look_into_each_gradient(reader):
    """That the norm is finite says it all; looking takes 13 kernels a parameter."""
    engine = new_engine(tiny_student(), precision="bfloat16")
    with Reductions() as reductions:
        step(engine, reader, plans((0, 1, 2)))
    assert reductions.count == 0


def deepest(student):
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(student.projector[0].weight).clone()


def test_bfloat16_keeps_buffers_and_master_weights_in_float32(reader):
    student = tiny_student()
    engine = new_engine(student, precision="bfloat16")

    outcome = step(engine, reader, plans((0, 1, 2)))

    assert student.projector[0].weight.dtype == torch.bfloat16
    assert student.language_model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert deepest(student).dtype == torch.float32
    assert np.isfinite(outcome.sums["loss"])
