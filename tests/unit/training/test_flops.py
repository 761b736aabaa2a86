"""Operations of a step: against torch's own count of every product that a pass makes."""

import copy
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fixtures.students import scene
from threedrs.config.schema import TUNABLE, LoraSettings, SupervisionSettings
from threedrs.models.backbones.known_backbones import backbone_names
from threedrs.models.lora.layers import add_lora, train_only
from threedrs.models.model_settings import ModelSettings
from threedrs.models.new_student import empty_student
from threedrs.models.packing import IGNORE, Pack, Prefix, Sample
from threedrs.models.student import Student
from threedrs.training.flops import OperationCount, device_peak

FRAMES, SAMPLES, OWN, ANSWER, CHANNELS = 4, 2, 64, 20, 2048
PREFIX = Prefix(before_ids=(1,) * 8, after_ids=(2,), labelled=frozenset())
LORA = LoraSettings(rank=64, alpha=64)


@cache
def published(name: str) -> Student:
    return empty_student(ModelSettings(name=name, size="7b", random_weights=True), CHANNELS)


def full_size(name: str, tunable: Sequence[str], lora: LoraSettings | None) -> Student:
    """A student of the published size without values, of which ``tunable`` is trained."""
    student = copy.deepcopy(published(name))
    if lora is not None:
        add_lora(student, lora, (0, 1), seed=0)
    train_only(student, tunable)
    return student.to("meta").train()


def texts(student: Student) -> Pack:
    """A pack of texts, whose own tokens need no rounding up."""
    labels = np.full(OWN, IGNORE)
    labels[-ANSWER:] = 5
    sample = Sample(
        id="0",
        input_ids=np.full(OWN, 5),
        labels=labels,
        prefix=PREFIX,
        target_rows=None,
        ground_index=None,
        coordinate=None,
    )
    inputs = scene(frames=FRAMES, channels=CHANNELS, grid=student.family.grid)
    return Pack(scene=inputs, samples=(sample,) * SAMPLES)


def attention(student: Student, pack: Pack, *, tower: bool, reached: bool) -> float:
    """Operations of both attentions: 4 a pair and number forward, 8 backward."""
    patches, width, _ = student.family.vision_sizes()
    seen = FRAMES * student.family.run_layers * 4 * width * patches**2
    prefix = pack.tokens - SAMPLES * OWN
    pairs = sum(range(prefix + 1)) + SAMPLES * sum(prefix + n + 1 for n in range(OWN))
    read = 28 * 4 * 3584 * pairs
    return seen * (3 if tower else 1) + read * (3 if reached else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tunable", "lora"),
    [(name, TUNABLE, None) for name in backbone_names()]
    + [
        ("llava-video", TUNABLE, LORA),
        ("llava-video", ("projector", "language_model", "heads"), None),
        ("llava-video", ("language_model",), LORA),
        ("llava-video", ("projector", "heads"), None),
        ("llava-video", ("vision_tower",), None),
        ("llava-video", ("heads",), None),
    ],
)
def test_products_with_weights_are_those_that_torch_counts(
    name: str, tunable: Sequence[str], lora: LoraSettings | None
) -> None:
    student = full_size(name, tunable, lora)
    pack = texts(student)
    with FlopCounterMode(display=False) as counter:
        student(pack.to(student.device), SupervisionSettings()).total(1.0).backward()
    counts = counter.get_flop_counts()["Global"]
    aten = torch.ops.aten  # attention's own products are bmm, and a few of frozen weights (0.4 %)
    weighted = (aten.mm, aten.addmm, aten.convolution, aten.convolution_backward)
    expected = sum(counts.get(kind, 0) for kind in weighted)

    parts = OperationCount(student, tunable).parts(
        frames=FRAMES,
        prefix=pack.tokens - SAMPLES * OWN,
        own=[OWN] * SAMPLES,
        predictions=SAMPLES * ANSWER,
    )
    found = sum(part.total for part in parts.values())
    found -= attention(
        student,
        pack,
        tower="vision_tower" in tunable,
        reached=bool({"vision_tower", "projector", "language_model"} & set(tunable)),
    )
    assert found == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA GeForce RTX 3090", None),
    ],
)
def test_peak_of_a_gpu(monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert device_peak(torch.device("cuda")) == peak
    assert device_peak(torch.device("cpu")) is None
