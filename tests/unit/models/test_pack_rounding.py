"""A pack whose sizes are rounded up has the losses and gradients of the pack itself."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fixtures import qwen2_vl
from fixtures.students import CAPTION, GROUNDING, MANY, MIXED, TEXT, ZERO_TARGET, pack, student
from threedrs.config.schema import SupervisionSettings
from threedrs.models.pack_rounding import OWN_TOKENS, rounded
from threedrs.models.packing import Pack, PackLosses, PackTensors
from threedrs.models.pass_sizes import power_of_two, rounded_tokens
from threedrs.models.student import Student

SUPERVISION = SupervisionSettings(weight=0.7)
SAMPLES = 7
ODD = replace(  # whose second frame alone has features
    pack(MIXED),
    scene=replace(
        pack(MIXED).scene,
        teacher_VGGC=pack(MIXED).scene.teacher_VGGC[1:],  # type: ignore[index]
        supervised_S=torch.tensor([1]),
    ),
)
WITHOUT_TEACHER = replace(pack(MIXED), scene=replace(pack(MIXED).scene, teacher_VGGC=None))
PACKS = {
    "mixed": pack(MIXED),
    "answers alone": pack(MIXED, label_chat_tokens=False),
    "one sample": pack([CAPTION]),
    "grounding alone": pack([GROUNDING, ZERO_TARGET], label_chat_tokens=False),
    "text alone": pack([TEXT, *MANY[:3]]),
    "a frame supervised": ODD,
    "no teacher": WITHOUT_TEACHER,
}


def _measured(
    model: Student, run: Callable[[], PackLosses], samples: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the losses of the samples, and the gradients."""
    model.zero_grad()
    losses = run()
    losses.total(SUPERVISION.weight).backward()
    assert losses.counted_K.tolist() == [1.0] * samples + [0.0] * (len(losses.text_K) - samples)
    found = [losses.text_K, losses.grounding_K]
    for loss_K in found:
        assert not loss_K[samples:].any()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [*(loss_K[:samples] for loss_K in found), losses.supervision], gradients


def _check(model: Student, packed: Pack, tensors: PackTensors) -> None:
    count = len(packed.samples)
    losses, gradients = _measured(model, lambda: model(packed, SUPERVISION), count)
    found, theirs = _measured(model, lambda: model.losses(tensors, SUPERVISION), count)
    for loss, expected in zip(found, losses, strict=True):
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert set(theirs) == set(gradients)
    whole = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    for name, gradient in gradients.items():
        # A key's bias shifts all scores of a query alike: its gradient is rounding, not a number.
        error = (theirs[name] - gradient).norm()
        assert error <= 1e-5 * gradient.norm() + 1e-7 * whole, name


def test_sizes_by_hand() -> None:
    # Multiples of 256, from 4,097 of 512, from 8,193 of 1,024.
    sizes = [1, 256, 257, 3360, 4095, 4097, 5000, 8193]
    assert [rounded_tokens(tokens, OWN_TOKENS) for tokens in sizes] == [
        *(256, 256, 512, 3584, 4096),
        *(4608, 5120, 9216),
    ]
    assert [power_of_two(number, 4) for number in (1, 4, 5, 8, 9)] == [4, 4, 8, 8, 16]


@pytest.mark.parametrize("kind", PACKS)
def test_rounding_sizes_changes_no_loss_and_no_gradient(kind: str) -> None:
    model, packed = student(), PACKS[kind]
    tensors = PackTensors.of(packed, model.family)
    larger = rounded(tensors, SAMPLES)

    assert larger.predictions == tensors.predictions == len(tensors.text.target_M)
    _check(model, packed, larger)


@pytest.mark.parametrize("grid", [14, 7])
def test_the_same_with_qwen2_vl(grid: int) -> None:
    """Whose positions are three numbers each."""
    model, packed = qwen2_vl.loaded(grid)[0], qwen2_vl.pack(MIXED, grid)
    _check(model, packed, rounded(PackTensors.of(packed, model.family), SAMPLES))


def test_what_is_added_could_hold_any_numbers() -> None:
    """So that it is left out, and not only small."""
    model, packed = student(), PACKS["mixed"]
    plain = PackTensors.of(packed, model.family)
    full = rounded(plain, SAMPLES)
    text, points, objects = len(plain.ids_T), len(plain.index_P), len(plain.scene.boxes_N6)
    full.ids_T[text:] = 5
    full.position_ids[:, plain.position_ids.shape[-1] :] = 3
    full.points_P3[points:] = 1.5
    full.index_P[points:] = text + 2
    full.text.target_M[plain.predictions :] = 7
    full.text.predictor_M[plain.predictions :] = 9
    full.scene.boxes_N6[objects:] = 0.5
    full.scene.fine_NVFF[objects:] = True
    full.scene.coarse_NVGG[objects:] = True
    full.grounding.target_KM[len(packed.samples) :] = True
    full.grounding.index_K[len(packed.samples) :] = 11
    _check(model, packed, full)


def test_packs_that_differ_have_one_size() -> None:
    model = student()
    first, second = (
        rounded(PackTensors.of(one, model.family), SAMPLES)
        for one in (pack([TEXT, GROUNDING]), pack([CAPTION, *MANY[:4]]))
    )
    assert first.ids_T.shape == second.ids_T.shape
    assert first.text.weights_KM.shape == second.text.weights_KM.shape == (SAMPLES, 256)
    assert first.grounding.target_KM.shape == second.grounding.target_KM.shape == (SAMPLES, 33)
    assert len(first.index_P) == len(second.index_P) == SAMPLES
    assert first.predictions != second.predictions
