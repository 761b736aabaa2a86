"""The settings of a run, its DeepSpeed file, and the fingerprint."""

import json

import pytest

from fixtures.training_run import ROOT, write_run
from fixtures.training_steps import reader as reader
from fixtures.training_steps import settings
from threedrs.config.schema import Execution
from threedrs.errors import ConfigError, DataError
from threedrs.io.files import write_json
from threedrs.training.engine import deepspeed_config, zero_init
from threedrs.training.recipe import fingerprint, fingerprint_changes, is_offloaded, read_run


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
    write_json(file, {"benchmark": "scanqa"})
    with pytest.raises(DataError, match=r"is not a run's settings; give results/train/RUN/config"):
        read_run(file)


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
    with pytest.raises(
        ConfigError, match="json: the section `train` sets train_batch_size; remove"
    ):
        deepspeed_config(settings(deepspeed=str(path)), 1)

    write_json(path, {"zero_optimization": {"stage": 1}})
    with pytest.raises(ConfigError, match=r"stage is 1; choose one of: 2, 3"):
        deepspeed_config(settings(deepspeed=str(path)), 1)


@pytest.mark.parametrize(
    ("keys", "zero", "message"),
    [
        ({"communication_data_type": "fp16"}, {}, "communication_data_type is not a key"),
        ({"aio": {}}, {}, "aio is not a key"),
        ({}, {"zero_quantized_gradients": True}, "zero_quantized_gradients is True; choose one of"),
        (
            {},
            {"offload_optimizer": {"device": "nvme"}},
            "offload_optimizer.device is .*; choose one of: cpu",
        ),
        (
            {},
            {"offload_param": {"device": "cpu", "ratio": 0.5}},
            "zero_optimization.offload_param.ratio is 0.5; remove it",
        ),
        ({}, {"offload_param": "cpu"}, "offload_param: 'cpu' is not of type"),
        ({}, {"stage": 2, "offload_param": {"device": "cpu"}}, "offload_param needs stage 3"),
        ({}, {"compute_grad_norm": False}, "compute_grad_norm is False; choose one of: True"),
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
