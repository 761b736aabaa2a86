"""Every attention backend, results and gradients, against a softmax over a dense mask."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fixtures.cpu_kernels import flash_attn_func
from fixtures.students import MIXED, pack, student
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import MachineError
from threedrs.models.attention import packed as kernels_of_packs
from threedrs.models.attention.packed import ROWS, PackMask, pack_mask
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Layout, suffix_mask

CPU = torch.device("cpu")
LAYOUTS = [
    Layout(prefix_length=37, lengths=(5, 1, 9)),
    Layout(prefix_length=4, lengths=(1, 1)),
    Layout(prefix_length=130, lengths=(3,) * 16),
]
SCALE = 0.2
HEADS, KEY_HEADS, WIDTH = 4, 2, 16


def _tensors(layout: Layout, device: torch.device = CPU, width: int = WIDTH) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    total = layout.prefix_length + sum(layout.lengths)
    shapes = [(1, heads, total, width) for heads in (HEADS, KEY_HEADS, KEY_HEADS, HEADS)]
    return [torch.randn(shape, generator=random).to(device) for shape in shapes]


def _dense(layout: Layout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention, (1,T,heads,d), one head after the other."""
    owner = [-1] * layout.prefix_length
    owner += [number for number, length in enumerate(layout.lengths) for _ in range(length)]
    total = len(owner)
    allowed = [[c <= r and owner[c] in (-1, owner[r]) for c in range(total)] for r in range(total)]
    hidden = ~torch.tensor(allowed, device=query.device)
    heads = []
    for head in range(HEADS):
        shared = head // (HEADS // KEY_HEADS)
        scores = SCALE * query[0, head] @ key[0, shared].T
        weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)
        heads.append(weights @ value[0, shared])
    return torch.stack(heads, dim=1)[None]


def _check_gradients(attend: Any, layout: Layout, device: torch.device = CPU) -> None:
    *inputs, gradient = _tensors(layout, device)
    gradient = gradient.transpose(1, 2)
    results = []
    for function in (attend, lambda *tensors: _dense(layout, *tensors)):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        result = function(*leaves)
        results.append([result, *torch.autograd.grad(result, leaves, gradient)])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_sdpa_kernels_meet_few_shapes_and_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN plans anew for each: it must not meet the number of a pack's tokens in any of them."""
    met: dict[bool, set[Any]] = {True: set(), False: set()}

    def attend(*tensors: Tensor, is_causal: bool = False, **options: Any) -> Tensor:
        mask = options.get("attn_mask")
        if mask is not None:
            assert mask.any(-1).all()  # no softmax is over nothing
            tensors = (*tensors, mask)
        met[is_causal].add(tuple((tensor.shape, tensor.stride()) for tensor in tensors))
        return torch.zeros_like(tensors[0])

    monkeypatch.setattr(kernels_of_packs, "scaled_dot_product_attention", attend)
    rows = [*range(64, 1024, 64), *range(1024, 2048, 128), *range(2048, 4097, 256)]
    for own in [2, *rows, *(length + 1 for length in rows[:-1])]:
        layout = Layout(prefix_length=10, lengths=(own - 1, 1))
        mask = pack_mask(layout.prefix_length, layout.owner_S, "sdpa", torch.empty(1))
        assert mask is not None
        # As the model has them: tokens before heads in memory.
        query, key, value = (
            torch.empty(1, 10 + own, heads, 1).transpose(1, 2) for heads in (HEADS, 2, 2)
        )
        assert mask.attend(query, key, value, SCALE).shape == (1, 10 + own, HEADS, 1)
    assert len(met[True]) == 1
    assert sorted(shapes[0][0][2] for shapes in met[False]) == rows


class Noted(torch.autograd.Function):
    """Notes the strides of the gradients that come back to a tensor."""

    strides: ClassVar[list[tuple[int, ...]]] = []

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Noted.strides.append(gradient.stride()[1:])  # of a batch of one the first means nothing
        return gradient


def test_gradients_of_suffixes_have_the_strides_of_their_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cuDNN's plan for one kind of strides is taken for all, and gives wrong gradients."""

    def attend(*tensors: Tensor, **options: Any) -> Tensor:
        result = scaled_dot_product_attention(*tensors, **options)
        return Noted.apply(result) if "attn_mask" in options else result  # type: ignore[no-untyped-call]

    monkeypatch.setattr(kernels_of_packs, "scaled_dot_product_attention", attend)
    monkeypatch.setattr(Noted, "strides", [])
    for own in (ROWS - 5, ROWS):  # with rows that are cut off, and with none
        layout = Layout(prefix_length=10, lengths=(own - 1, 1))
        mask = pack_mask(layout.prefix_length, layout.owner_S, "sdpa", torch.empty(1))
        assert mask is not None
        *inputs, gradient = _tensors(layout)
        inputs[0].requires_grad_()
        mask.attend(*inputs, SCALE).backward(gradient.transpose(1, 2))
    assert Noted.strides == [(ROWS * WIDTH, WIDTH, 1)] * 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sdpa(layout: Layout) -> None:
    mask = pack_mask(layout.prefix_length, layout.owner_S, "sdpa", torch.empty(1))
    assert isinstance(mask, PackMask)
    _check_gradients(lambda *tensors: mask.attend(*tensors, SCALE), layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flash_with_its_function_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    monkeypatch.setattr(kernels_of_packs, "flash_attention", lambda: flash_attn_func)
    mask = PackMask(
        prefix_length=layout.prefix_length,
        mask_11ST=suffix_mask(layout.prefix_length, layout.owner_S),
        flash=True,
    )
    _check_gradients(lambda *tensors: mask.attend(*tensors, SCALE), layout)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_flash_gradients_on_gpu(layout: Layout) -> None:
    pytest.importorskip("flash_attn")
    _check_half_precision(layout, "flash")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gradients_on_gpu_of_packs_with_as_many_rows() -> None:
    for own in (ROWS, ROWS - 5, ROWS):
        _check_half_precision(Layout(prefix_length=141, lengths=(own - 1, 1)), "sdpa")


def _check_half_precision(layout: Layout, backend: str) -> None:
    *inputs, gradient = (t.bfloat16() for t in _tensors(layout, torch.device("cuda"), width=128))
    owner_S = layout.owner_S.to("cuda")
    mask = pack_mask(layout.prefix_length, owner_S, backend, inputs[0][0, :, 0])
    assert isinstance(mask, PackMask)
    results = []
    for attend, dtype in (
        (lambda *tensors: mask.attend(*tensors, SCALE), torch.bfloat16),
        (lambda *tensors: _dense(layout, *tensors), torch.float32),
    ):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        result = attend(*leaves)
        results.append(
            [result, *torch.autograd.grad(result, leaves, gradient.transpose(1, 2).to(dtype))]
        )
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-2 * expected.norm()  # bfloat16 has 8 bits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_packed_gradients_on_gpu() -> None:
    model = student(width=256, heads=(2, 1)).to("cuda")
    sums = []
    for packs in (
        [pack(MIXED)],
        [pack([item]) for item in MIXED],
    ):
        model.zero_grad()
        for one in packs:
            model(one.to("cuda"), SupervisionSettings()).total(1.0).backward()
        sums.append({name: p.grad.clone() for name, p in model.named_parameters()})
    together, alone = sums
    largest = max(gradient.norm() for gradient in alone.values())
    for name, gradient in alone.items():
        # Kernels of a GPU add in any order; a gradient that is zero but for rounding counts too.
        difference = (together[name] - gradient).norm()
        assert difference <= 1e-4 * gradient.norm() + 1e-6 * largest, name


def test_one_sample_takes_the_plain_path() -> None:
    for backend in ("auto", "sdpa"):
        assert pack_mask(9, None, backend, torch.empty(1)) is None


def test_backends_that_cannot_run_say_so() -> None:
    layout = LAYOUTS[0]
    with pytest.raises(MachineError, match="flash needs a GPU; choose auto or sdpa"):
        pack_mask(layout.prefix_length, layout.owner_S, "flash", torch.empty(1))


def test_flash_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flash_attn", None)
    from threedrs.models.attention.kernels import flash_attention

    flash_attention.cache_clear()
    with pytest.raises(MachineError, match="needs the package flash-attn"):
        flash_attention()
    with pytest.raises(MachineError, match="needs the package flash-attn"):
        load_student(ModelSettings(attention="flash"))
