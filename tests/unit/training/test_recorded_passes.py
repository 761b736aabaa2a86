"""Recorded passes: what they read, which are recorded, and steps that equal launched ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures import qwen2_vl, students
from fixtures.students import CAPTION, GROUNDING, MANY, MIXED, TEXT
from fixtures.training_run import lone_ranks
from fixtures.training_steps import settings
from threedrs.config.schema import LoraSettings, SupervisionSettings
from threedrs.distributed.ranks import Ranks
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Pack
from threedrs.models.scene_inputs import with_tensors
from threedrs.models.student import Student
from threedrs.training import recorded_passes
from threedrs.training.engine import build_engine
from threedrs.training.flops import OperationCount
from threedrs.training.one_rank_engine import OneRankEngine
from threedrs.training.recorded_passes import (
    PassInputs,
    RecordedPasses,
    Recording,
    size_of,
)
from threedrs.training.step import PackObjective, train_step

pytestmark = pytest.mark.slow
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SUPERVISION = SupervisionSettings(weight=0.7)
SAMPLES = 16
RECORDS = [*MIXED, *MANY]


class Repeated(RecordedPasses):
    """Recorded passes without a GPU: in place of a replay the pass runs again on what it read."""

    @contextmanager
    def _beside(self) -> Iterator[None]:
        yield

    def _record(self, inputs: PassInputs) -> Recording:
        kept, sums = with_tensors(inputs, torch.clone), torch.zeros_like(inputs.counts)
        graph: Any = SimpleNamespace(replay=lambda: sums.copy_(self._pass(kept)))
        return Recording(graph=graph, inputs=kept, sums=sums)


def objective(student: Student) -> PackObjective:
    return PackObjective(student, SUPERVISION, OperationCount(student, settings().tunable))


def engine_of(
    student: Student, ranks: Ranks, precision: str = "float32", *, recorded: bool = False
) -> OneRankEngine:
    recipe = settings(
        global_batch=SAMPLES,
        pack=SAMPLES,
        learning_rate=1e-3,
        learning_rate_vision_tower=1e-3,
        warmup_fraction=0.1,
        precision=precision,
        record_passes=recorded,
    )
    engine = build_engine(student.train(), recipe, SUPERVISION, ranks, total_steps=40)
    assert isinstance(engine, OneRankEngine)
    return engine


def ranks_on(device: str) -> Ranks:
    """Return one rank with a device of a kind that need not be there."""
    ranks = Ranks()
    vars(ranks)["device"] = torch.device(device)
    return ranks


def take(engine: OneRankEngine, packs: list[Pack], ranks: Ranks) -> dict[str, float]:
    outcome = train_step(
        engine,
        [(pack, 1.0) for pack in packs],
        micro_step_count=len(packs),
        samples=sum(len(pack.samples) for pack in packs),
        ranks=ranks,
        interrupted=lambda: False,
    )
    return {**outcome.sums, "norm": outcome.grad_norm}


# What a recording must not hold


class Obstacles(TorchDispatchMode):
    """Collects the operators that take something of the host's to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [one for one in torch.utils._pytree.tree_leaves(args) if isinstance(one, Tensor)]
        if isinstance(result, Tensor) and result.is_meta:
            copied = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
            self.met += [str(func) for one in given if not one.is_meta and (one.ndim or copied)]
        return result


def build_llava() -> tuple[Student, Callable[..., Pack]]:
    return students.student(), students.pack


def build_qwen2_vl() -> tuple[Student, Callable[..., Pack]]:
    loaded = load_student(ModelSettings(name="qwen2-vl"), teacher_channels=qwen2_vl.CHANNELS)
    return loaded[0], qwen2_vl.pack


@pytest.mark.parametrize("build", [build_llava, build_qwen2_vl])
def test_a_pass_asks_the_device_for_nothing_and_copies_nothing_there(build: Any) -> None:
    """On a device without memory, where a look at a number, or at how many there are, fails."""
    student, pack = build()
    packed = pack((*MIXED, *MANY[:2]))
    passes = Repeated(objective(student), SAMPLES)
    inputs = with_tensors(passes._inputs(packed, 0.25), lambda tensor: tensor.to("meta"))
    student.to("meta")
    passes._pass(inputs)  # what is kept of a first use is there then

    with Obstacles() as obstacles:
        passes._pass(inputs)

    assert obstacles.met == []


def test_obstacles_are_found() -> None:
    """So that the test above can fail."""
    host, device = torch.ones(3), torch.ones(3, device="meta")
    with Obstacles() as obstacles:
        host.to("meta")
        device.copy_(host)
        device * torch.tensor(2.0)  # a number is part of the launch
    assert obstacles.met == ["aten._to_copy.default", "aten.copy_.default"]


# Which passes are recorded


def test_a_size_is_launched_once_then_recorded_and_the_oldest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorded_passes, "SIZES", 2)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    passes = Repeated(objective(students.student()), SAMPLES)
    few, other = students.pack([TEXT]), students.pack([GROUNDING, TEXT])
    many = students.pack(RECORDS)
    fewer = students.pack([TEXT], students.scene(frames=1))
    sizes = [size_of(passes._inputs(one, 1.0)) for one in (few, other, many, fewer)]
    assert sizes[0] == sizes[1]
    assert len(set(sizes)) == 3

    def kept() -> dict[int, bool]:
        """Return which of the sizes are kept, by number, and whether they are recorded."""
        return {sizes.index(size): found is not None for size, found in passes.recordings.items()}

    passes.add_gradient(few, 1.0)
    assert kept() == {0: False}
    passes.add_gradient(other, 1.0)
    assert kept() == {0: True}
    passes.add_gradient(many, 1.0)
    passes.add_gradient(few, 1.0)
    assert list(kept().items()) == [(2, False), (0, True)]
    passes.add_gradient(fewer, 1.0)
    assert kept() == {0: True, 3: False}


@pytest.mark.parametrize("build", [build_llava, build_qwen2_vl])
def test_steps_equal_launched_ones(build: Any) -> None:
    ranks = lone_ranks()
    (student, pack), (other, _) = build(), build()
    launched, recorded = engine_of(student, ranks), engine_of(other, ranks)
    passes = Repeated(recorded.module, SAMPLES)
    recorded.passes = passes
    steps = [
        [pack((TEXT, GROUNDING))],
        [pack((CAPTION,)), pack((GROUNDING, *MANY[:3]))],
        [pack(tuple(RECORDS)), pack((TEXT, TEXT))],
        [pack((GROUNDING, CAPTION, TEXT))],
    ]
    for number, packs in enumerate(steps):
        expected, found = take(launched, packs, ranks), take(recorded, packs, ranks)
        # AdamW divides by the size of a gradient: one that is rounding alone moves either way, and
        # later steps see that.
        off = 1e-3 if number else 1e-5
        assert found == pytest.approx(expected, rel=off, abs=off)
    assert sorted(found is not None for found in passes.recordings.values()) == [False, True]


# Where passes cannot be recorded


@pytest.mark.parametrize(
    ("changes", "device", "alone", "said"),
    [
        ({}, "cpu", True, "without a GPU"),
        ({}, "cuda", False, "on several ranks, with ZeRO-3 or with offload"),
        ({"gradient_checkpointing": True}, "cuda", True, "with execution.gradient_checkpointing"),
        (
            {"lora": LoraSettings(rank=2, alpha=2, dropout=0.1)},
            "cuda",
            True,
            "with dropout in train.lora",
        ),
    ],
)
def test_obstacles_are_said_and_passes_launched(
    changes: dict[str, Any], device: str, alone: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, ranks = objective(students.student()), ranks_on(device)
    assert recorded_passes.recorded_passes(one, settings(**changes), ranks, alone=alone) is None
    assert caplog.messages == []
    asked = settings(record_passes=True, **changes)
    assert recorded_passes.recorded_passes(one, asked, ranks, alone=alone) is None
    assert caplog.messages == [f"execution.record_passes: no pass is recorded {said}"]


def test_without_an_obstacle_passes_are_recorded_if_asked_for() -> None:
    one, ranks = objective(students.student()), ranks_on("cuda")
    assert recorded_passes.recorded_passes(one, settings(), ranks, alone=True) is None
    asked = settings(record_passes=True, pack=7)
    passes = recorded_passes.recorded_passes(one, asked, ranks, alone=True)
    assert passes is not None
    assert passes.samples == 7


def test_an_engine_on_the_cpu_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    # A group of a machine with a GPU sums on the GPU alone, and one rank has nothing to sum.
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda totals: None)
    ranks = ranks_on("cpu")
    engine = engine_of(students.student(), ranks, recorded=True)
    assert take(engine, [students.pack([TEXT])], ranks)["samples"] == 1


# On a GPU


def gpu_engine(precision: str, way: str) -> OneRankEngine:
    """Return an engine of a way: ``launched``, ``rounded`` (never recorded) or ``recorded``."""
    torch.manual_seed(0)
    student, _ = load_student(
        ModelSettings(name="qwen2-vl", size="mini", grid=7), teacher_channels=qwen2_vl.CHANNELS
    )
    engine = engine_of(student, lone_ranks(), precision, recorded=way != "launched")
    if way == "rounded":
        assert engine.passes is not None
        engine.passes._record = lambda inputs: None  # type: ignore[assignment,method-assign,return-value]
    return engine


def gpu_packs(number: int) -> list[Pack]:
    """Return the packs of a step: one of many samples and one of few, of another room each time."""
    chosen = [RECORDS[(number + 3 * k) % len(RECORDS)] for k in range(SAMPLES)]
    packs = [qwen2_vl.pack(tuple(one), 7) for one in (chosen[:12], chosen[12:])]
    room = packs[0].scene
    room = replace(room, rgb_VHWC=room.rgb_VHWC.roll(40 * number, 1), boxes_N6=room.boxes_N6 * 0.9)
    return [replace(one, scene=room) for one in packs]


def off(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the distance of the one from the other, as a part of it."""
    return float(torch.cat(found).sub(torch.cat(expected)).norm() / torch.cat(expected).norm())


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_gradients_are_those_of_launched_passes(precision: str) -> None:
    """At the same weights, of pack after pack: so nothing that a recording reads is out of date."""
    ways = {way: gpu_engine(precision, way) for way in ("launched", "rounded", "recorded")}
    found: dict[str, list[list[Tensor]]] = {way: [] for way in ways}
    for way, engine in ways.items():
        engine.step = lambda: None  # type: ignore[method-assign]
        for number in range(6):
            take(engine, gpu_packs(number), lone_ranks())
            flat = engine.optimizer.gradients
            found[way].append([gradient.float().clone() for gradient in flat])
            torch._foreach_zero_(flat)
    passes = ways["recorded"].passes
    assert passes is not None
    assert all(passes.recordings.values())
    for number in range(6):
        launched, rounded, recorded = (found[way][number] for way in ways)
        order = off(rounded, launched)
        replayed = off(recorded, rounded)
        print(f"{precision}, pack {number}: {off(recorded, launched):.1e}, ", end="")
        print(f"order {order:.1e}, replay {replayed:.1e}")
        assert off(recorded, launched) <= (1e-3 if precision == "float32" else 2 * order)
        assert off(found["launched"][number - 1], launched) > 0.1  # packs differ


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_twenty_recorded_steps_are_those_of_launched_passes(precision: str) -> None:
    """In bfloat16 no further from them than launched passes of another order of sums, times 2."""
    losses: dict[str, list[Tensor]] = {}
    for way in ("launched", "rounded", "recorded"):
        engine = gpu_engine(precision, way)
        steps = [take(engine, gpu_packs(number), lone_ranks()) for number in range(20)]
        losses[way] = [torch.tensor([sums["loss"] for sums in steps])]
    order, recorded = (off(losses[way], losses["launched"]) for way in ("rounded", "recorded"))
    replayed = off(losses["recorded"], losses["rounded"])
    print(f"{precision}: recorded {recorded:.1e}, another order {order:.1e}, replay {replayed:.1e}")
    assert recorded <= (1e-3 if precision == "float32" else 2 * order)
    first, last = losses["launched"][0][[0, -1]].tolist()
    assert last < 0.9 * first  # the weights have moved
