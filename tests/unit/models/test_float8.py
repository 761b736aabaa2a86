"""Products in float8: against scaled and rounded factors written out, and what refuses them."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from fixtures.benchmark_scripts import ENVIRONMENT
from fixtures.forked_jobs import forked_python
from fixtures.students import MIXED, pack, student
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import ConfigError, MachineError
from threedrs.models import float8
from threedrs.models.backbones.fused_layers import GATE_UP


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values as 8 bits hold them: the largest of all becomes the largest number."""
    scale = torch.finfo(dtype).max / values.abs().max().double()
    return (values.float() * scale.float()).to(dtype).double() / scale


def test_products_are_those_of_scaled_and_rounded_factors() -> None:
    pytest.importorskip("torchao")
    model = student().bfloat16()
    mlp = model.language_model.model.layers[0].mlp
    linear, tokens = getattr(mlp, GATE_UP[0]), 37  # a number of tokens that 16 does not divide
    hidden = torch.randn(1, tokens, linear.in_features, dtype=torch.bfloat16, requires_grad=True)
    toward = torch.randn(1, tokens, linear.out_features, dtype=torch.bfloat16)
    float8.use_float8(model)
    with torch.no_grad():  # as the exported model answers
        assert torch.equal(linear(hidden), torch.nn.functional.linear(hidden, linear.weight))
    product = linear(hidden)
    product.backward(toward)
    x, w = rounded(hidden[0], torch.float8_e4m3fn), rounded(linear.weight, torch.float8_e4m3fn)
    g = rounded(toward[0], torch.float8_e5m2)
    found = (product[0], hidden.grad[0], linear.weight.grad)  # type: ignore[index]
    for one, expected in zip(found, (x @ w.T, g @ w, g.T @ x), strict=True):
        assert (one.double() - expected).abs().max() <= 2**-8 * expected.abs().max()


def test_a_student_learns_in_float8() -> None:
    pytest.importorskip("torchao")
    plain, model = student().bfloat16().train(), student().bfloat16().train()
    names = list(model.state_dict())
    float8.use_float8(model)
    assert list(model.state_dict()) == names
    settings = SupervisionSettings()
    losses = [each(pack(MIXED), settings).total(1.0) for each in (plain, model)]
    losses[1].backward()
    assert losses[0].item() != losses[1].item()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)
    assert all(parameter.grad is not None for parameter in model.language_model.parameters())


@pytest.mark.slow
def test_weights_spread_by_zero3_get_the_same_gradients() -> None:
    pytest.importorskip("torchao")
    command = [forked_python(), "-m", "threedrs.distributed.launch", "--gpus", "2"]
    result = subprocess.run(
        [*command, "fixtures.float8_ranks"],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("gradients are equal") == 2


def test_what_refuses_float8(monkeypatch: pytest.MonkeyPatch) -> None:
    model = student()
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    float8._products.cache_clear()
    with pytest.raises(MachineError, match=r"pip install 'torchao==0\.18\.\*'"):
        float8.use_float8(model)
    monkeypatch.setattr(float8, "_products", lambda: None)
    monkeypatch.setattr(float8, "MULTIPLE", 128)
    with pytest.raises(ConfigError, match=r"layer 0\.self_attn\.q_proj is 32 x 32"):
        float8.use_float8(model)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    with pytest.raises(MachineError, match="A100 has no float8 products; take an H100"):
        float8.use_float8(model)
