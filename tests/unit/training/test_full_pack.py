"""What a full pack takes of a GPU: against arithmetic by hand, and against what was measured."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from fixtures.repository import ROOT
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.lora.layers import add_lora
from threedrs.models.model_settings import ModelSettings
from threedrs.models.new_student import empty_student
from threedrs.models.student import Student
from threedrs.training import run_setup
from threedrs.training.full_pack import GIB, FullPack
from threedrs.training.recipe import TrainSettings

ZERO3 = {
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": 1000,
        "stage3_max_live_parameters": 5000,
        "stage3_max_reuse_distance": 5000,
    }
}


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(**changes)


def memory_parts(
    student: Student, recipe: TrainSettings, deepspeed: dict[str, Any], frames: int, gpus: int
) -> dict[str, float]:
    pack = FullPack(student=student, settings=recipe, frames=frames)
    return pack.memory(deepspeed, gpus)


def test_tiny_student_by_hand() -> None:
    student = empty_student(ModelSettings(name="llava-video"), 8)
    parameters = sum(p.numel() for p in student.parameters())
    recipe = settings(pack=2, gradient_checkpointing=True, kept_layers=1)
    parts = memory_parts(student, recipe, ZERO3, frames=2, gpus=4)
    # Language: 3 layers of width 96, MLP 256, 2 key heads of 24. Vision: 2 layers of 48, MLP 96.
    tokens = 2 * 210 + 44 + 2 * 64
    patches = 2 * 729
    layer = tokens * (5 * 96 + 2 * 48 + 3 * 256 + 3 * 96)
    assert parts["parameters"] == parameters * 4 / 4
    assert parts["gathered parameters"] == 4 * 5000
    assert parts["gradients"] == parameters * 4 / 4
    assert parts["optimizer"] == parameters * 12 / 4
    assert parts["buckets"] == 2 * 4 * 1000
    assert parts["kept activations"] == 4 * (3 * tokens * 96 + 2 * patches * 48 + layer)
    assert parts["layer at work"] == 4 * max(
        layer + tokens * (2 * 256 + 2 * 96), patches * (7 * 48 + 2 * 96 + 2 * 96 + 2 * 48)
    )
    assert parts["projector"] == 4 * patches * (48 + 3 * 96)
    vocabulary = student.text_config.vocab_size
    assert parts["heads and logits"] == 4 * 2 * 196 * 6 * 96 + 10 * vocabulary * 20 * 2
    assert parts["system"] == 2 * GIB


def test_heads_wider_than_the_model_by_hand() -> None:
    """Qwen3's heads are: 4 of 48 channels, 2 of keys, in a model of 96."""
    student = empty_student(ModelSettings(name="llava-video"), 8)
    student.text_config.head_dim = 48
    recipe = settings(
        pack=2, lora={"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "o_proj"]}
    )
    pack = FullPack(student=student, settings=recipe, frames=2)
    # Of each number 4 bytes, and of an input that dropout passes one more.
    dropped = (96 + 192) * 5 / 4
    numbers = 3 * 96 + 2 * 192 + 2 * 96 + 3 * 256 + 3 * 192 + 2 * 4 + dropped
    assert pack.layer_numbers == (2 * 210 + 44 + 2 * 64) * numbers


def test_adapters_by_hand() -> None:
    student = empty_student(ModelSettings(name="llava-video"), 8)
    plain = sum(p.numel() for p in student.parameters())
    lora = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj", "down_proj"]}
    recipe = settings(pack=2, lora=lora, tunable=["language_model", "heads"])
    add_lora(student, recipe.lora, (0, 1), seed=0)
    parts = memory_parts(student, recipe, ZERO3, frames=2, gpus=4)
    # Rank 4 on 96 -> 96, 96 -> 48 and 256 -> 96 in 3 layers, and two rows of two matrices.
    adapters = 3 * 4 * (96 + 96 + 96 + 48 + 256 + 96) + 2 * 2 * 96
    heads = sum(p.numel() for p in student.parameter_groups()["heads"])
    assert parts["parameters"] == (plain + adapters) * 4 / 4
    assert parts["optimizer"] == 12 * (adapters + heads) / 4
    assert parts["gradients"] == 4 * (adapters + heads) / 4
    without = memory_parts(
        student, settings(pack=2, tunable=list(recipe.tunable)), ZERO3, frames=2, gpus=4
    )
    tokens = 2 * 210 + 44 + 2 * 64
    # Kept besides: the narrow products, and what goes in behind dropout with a byte of its mask.
    more = 3 * tokens * (4 * 3 * 4 + (96 + 96 + 256) * (4 + 1))
    assert parts["kept activations"] - without["kept activations"] == pytest.approx(more)


def test_stages_and_frozen_parts() -> None:
    student = empty_student(ModelSettings(name="qwen2-vl"), 0)
    counts = {k: sum(p.numel() for p in v) for k, v in student.parameter_groups().items()}
    whole = sum(counts.values())
    recipe = settings(tunable=["heads"], precision="bfloat16")
    zero2 = memory_parts(student, recipe, {"zero_optimization": {"stage": 2}}, 2, gpus=2)
    assert zero2["parameters"] == 2 * whole
    assert zero2["gathered parameters"] == 0
    assert zero2["gradients"] == 2 * counts["heads"] / 2
    assert zero2["optimizer"] == 12 * counts["heads"] / 2
    parts, hosts = {}, {}
    for device in ("cpu", "none"):
        where = {"offload_optimizer": {"device": device}, "offload_param": {"device": device}}
        offload = {"zero_optimization": {"stage": 3, **where}}
        parts[device] = memory_parts(student, recipe, offload, 2, gpus=2)
        hosts[device] = FullPack(student=student, settings=recipe, frames=2).host_memory(offload)
    on_host = {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}
    assert hosts == {"cpu": 1.5 * (16 * counts["heads"] + 2 * whole), "none": 0}
    for part in ("parameters", "gradients", "optimizer"):
        assert parts["cpu"][part] == 0
    assert parts["none"]["gradients"] == 2 * counts["heads"] / 2
    alone = [memory_parts(student, recipe, what, 2, gpus=1) for what in (offload, on_host)]
    assert [part["gathered parameters"] for part in alone] == [0, 2 * whole]
    assert parts["none"]["parameters"] == 2 * whole / 2
    assert parts["none"]["optimizer"] == 12 * counts["heads"] / 2


def test_recordings_keep_what_a_pass_takes_once_more() -> None:
    student = empty_student(ModelSettings(name="qwen2-vl"), 0)
    zero2 = {"zero_optimization": {"stage": 2}}
    offload = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    recipe = settings(record_passes=True)
    parts = memory_parts(student, recipe, zero2, 2, gpus=1)
    names = ("kept activations", "layer at work", "projector", "heads and logits")
    pool = sum(parts[name] for name in names)
    assert parts["recorded passes"] == pool + 32 * 4 * 2**20
    lora = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj"]}
    language = ["language_model", "heads"]
    for other, deepspeed, gpus in (
        (settings(), zero2, 1),
        (recipe, zero2, 2),
        (recipe, ZERO3, 1),
        (recipe, offload, 1),
        (recipe.replace(gradient_checkpointing=True, kept_layers=0), zero2, 1),
        (settings(record_passes=True, lora=lora, tunable=language), zero2, 1),
    ):
        assert memory_parts(student, other, deepspeed, 2, gpus=gpus)["recorded passes"] == 0


@pytest.mark.parametrize(("name", "activations"), [("llava-video", 2), ("qwen2-vl", 3)])
def test_what_a_layer_of_the_vision_tower_keeps(name: str, activations: int) -> None:
    student, _ = load_student(ModelSettings(name=name), teacher_channels=8)
    tower = student.vision_tower.train()
    layer = next(one for one in tower.modules() if isinstance(one, GradientCheckpointingLayer))
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.data_ptr()] = tensor.untyped_storage()
        return tensor

    def run(hidden: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        # The input counts by itself, and what all layers share is small.
        given = [hidden, *layer.parameters(), *(options.get("position_embeddings") or ())]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = forward(hidden, *arguments, **options)
        for tensor in given:
            storages.pop(tensor.data_ptr(), None)
        return output

    forward, layer.forward = layer.forward, run
    rgb = torch.zeros(2, 384, 384, 3, dtype=torch.uint8)
    student.family.fine_tokens(tower, student.projector, rgb)
    patches, width, inner = student.family.vision_sizes()
    numbers = sum({one.data_ptr(): one.nbytes() for one in storages.values()}.values()) / 4
    # An activation that torch does not compile, as on a CPU, keeps one number more of the MLP.
    expected = 2 * patches * (7 * width + activations * inner)
    assert expected <= numbers <= 1.02 * expected  # norms and the softmax keep some numbers a patch


def test_the_update_of_zero2_by_hand() -> None:
    """The vision tower of a frame is small beside a float32 gradient of the language model."""
    student = empty_student(ModelSettings(name="llava-video", size="small"), 0)
    groups = [sum(p.numel() for p in group) for group in student.parameter_groups().values()]
    zero2 = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}}
    recipe = settings(pack=1, gradient_checkpointing=True, kept_layers=0)
    pack = FullPack(student=student, settings=recipe, frames=1)
    passes = sum(pack.activations().values())
    parts, shared = pack.memory(zero2, 1), pack.memory(zero2, 2)
    assert (parts["update"], parts["buckets"]) == (4 * max(groups) - passes, 0)
    assert (shared["update"], shared["buckets"]) == (
        max(0, 4 * max(groups) / 2 - passes),
        2 * 4 * 1000,
    )
    # Layers that keep their activations take what the update needs anyway.
    one = replace(pack, settings=recipe.replace(kept_layers=1))
    assert parts["update"] > one.memory(zero2, 1)["update"]
    assert pack.most_kept_layers(zero2, 1, sum(one.memory(zero2, 1).values())) >= 1
    assert pack.memory(ZERO3, 1)["update"] == 0
    offloaded = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    assert pack.memory({"zero_optimization": offloaded}, 1)["update"] == 0


@pytest.mark.parametrize(
    ("tunable", "layers"),
    [
        (["vision_tower"], 3 + 2),
        (["projector", "language_model", "heads"], 3),
        (["projector"], 3),
        (["heads"], 0),
    ],
)
def test_layers_that_no_gradient_reaches_keep_nothing(tunable: list[str], layers: int) -> None:
    student = empty_student(ModelSettings(name="llava-video"), 8)
    plain = settings(pack=1, tunable=tunable)
    recomputed = plain.replace(gradient_checkpointing=True, kept_layers=99)
    for recipe in (plain, recomputed):
        pack = FullPack(student=student, settings=recipe, frames=2)
        tokens, patches = 2 * 210 + 44 + 64, 2 * 729
        language = min(layers, 3) * tokens * (96 + 5 * 96 + 2 * 48 + 3 * 256)
        vision = max(layers - 3, 0) * patches * (48 + 7 * 48 + 2 * 96)
        assert pack.activations()["kept activations"] == 4 * (language + vision)
    assert (pack.layers, pack.kept_layers) == (layers, layers)
    assert pack.most_kept_layers(ZERO3, 4, 1e15) == layers
    assert pack.operations()[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "pack", "measured_gib"),
    [
        (0, 1, 35.0),
        (0, 8, 35.3),
        (22, 1, 55.7),
        (22, 2, 59.0),
        (22, 4, 59.5),
        (22, 8, 60.6),
        (22, 16, 62.7),
        (28, 1, 61.6),
        (28, 8, 67.8),
        (54, 1, 80.5),
        (54, 8, 86.7),
    ],
)
def test_memory_that_was_measured(kept: int, pack: int, measured_gib: float) -> None:
    """Forward and backward without optimizer: benchmarks/RESULTS.md, "one training step".

    28 and 54 layers stand there now (H200), 0 and 22 of commit a724afc (H100, 2026-11-22).
    """
    student = empty_student(ModelSettings(name="llava-video", size="7b", random_weights=True), 2048)
    recipe = settings(
        pack=pack,
        gradient_checkpointing=True,
        kept_layers=kept,
        precision="bfloat16",
        global_batch=16,
    )
    zero = {"zero_optimization": {"stage": 2}}
    parts = memory_parts(student, recipe, zero, frames=32, gpus=1)
    without = ("optimizer", "update", "system")
    estimate = sum(parts.values()) - sum(parts[part] for part in without)
    assert measured_gib - 0.2 <= estimate / GIB <= 1.03 * measured_gib


def test_auto_keeps_the_layers_that_fit_95_percent_of_the_memory() -> None:
    student = empty_student(ModelSettings(name="llava-video"), 8)

    def memory(kept: int) -> float:
        recipe = settings(pack=1, gradient_checkpointing=True, kept_layers=kept)
        return sum(memory_parts(student, recipe, ZERO3, frames=2, gpus=4).values())

    # Each of the 3 layers keeps what `test_tiny_student_by_hand` counts; K = 1 repeats no keys.
    tokens = 2 * 210 + 44 + 64
    layer = 4 * tokens * (5 * 96 + 2 * 48 + 3 * 256)
    # And each of the 2 layers of the vision tower of 48 channels, MLP 96.
    vision = 4 * 2 * 729 * (7 * 48 + 2 * 96)
    ends = [0, layer, 2 * layer, 3 * layer, 3 * layer + vision, 3 * layer + 2 * vision]
    assert [memory(kept) - memory(0) for kept in range(6)] == ends
    recipe = settings(pack=1, gradient_checkpointing=True, kept_layers="auto")
    pack = FullPack(student=student, settings=recipe, frames=2)

    def kept(free: float) -> int | None:
        return pack.fitted(ZERO3, 4, free).kept_layers

    assert kept(memory(0) / 2) == 0  # not even none fits: nothing could be left out besides
    for count in range(5):
        assert kept((memory(count) + 1) / 0.95) == count
        assert kept((memory(count + 1) - 1) / 0.95) == count
    assert kept(1e15) == 5
    number = settings(pack=1, gradient_checkpointing=True, kept_layers=2)
    asked = FullPack(student=student, settings=number, frames=2)
    assert asked.fitted(ZERO3, 4, 1.0).kept_layers == 2
    nothing = FullPack(student=student, settings=settings(kept_layers="auto"), frames=2)
    assert nothing.fitted(ZERO3, 4, 1e15).kept_layers is None


def test_a_training_says_how_many_layers_keep_their_activations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paper's run on four GPUs of 80 GB, of which 85 are told and 80.75 are to be filled."""
    student = empty_student(ModelSettings(name="llava-video", size="7b", random_weights=True), 2048)
    recipe = settings(
        pack=1,
        global_batch=16,
        precision="bfloat16",
        gradient_checkpointing=True,
        kept_layers="auto",
        deepspeed=ROOT / "config/deepspeed/zero3.json",
    )
    ranks: Any = SimpleNamespace(first=True, count=4)
    monkeypatch.setattr(run_setup, "least_memory", lambda ranks: 85e9)
    kept = run_setup.kept_layers(student, recipe, 32, ranks)
    # A layer of 2 bytes a number: 6,720 visual tokens, 44 shared and 64 own ones.
    layer = 2 * (6720 + 44 + 64) * (5 * 3584 + 2 * 512 + 3 * 18944)
    none = recipe.replace(kept_layers=0)
    deepspeed = run_setup.deepspeed_config(none, 4)
    least = sum(memory_parts(student, none, deepspeed, frames=32, gpus=4).values())
    assert least + kept * layer <= 0.95 * 85e9 < least + (kept + 1) * layer
    planned = (least + kept * layer) / 2**30
    assert kept == 22
    assert capsys.readouterr().err == (
        f"train: keeps the activations of 22 of 54 layers: {planned:.0f} of 79 GiB\n"
    )
    monkeypatch.setattr(run_setup, "least_memory", lambda ranks: None)
    assert run_setup.kept_layers(student, recipe, 32, ranks) == 0  # on a CPU
