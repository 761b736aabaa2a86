"""What the card of a model says about the published code."""

from types import SimpleNamespace
from typing import Any

import pytest

from threedrs.models.backbones.llava import LlavaFamily
from threedrs.training.export import _model_card, _unloadable


class Defaults(dict):
    """Has an empty section for every key that a test does not say."""

    def __missing__(self, key: str) -> "Defaults":
        return Defaults()


def reason(size: str, channels: int) -> str | None:
    family = LlavaFamily.new(size, 152_000, 14)
    student: Any = SimpleNamespace(family=family, teacher_channels=channels)
    return _unloadable(student)


@pytest.mark.parametrize("channels", [0, 2048])
def test_the_card_says_whether_the_published_code_loads_the_model(channels: int) -> None:
    """That code builds SigLIP so400m (1152 wide, 27 layers) whatever config.json says."""
    assert reason("7b", channels) is None
    assert reason("small", channels) == (
        "its vision tower is google/siglip-so400m-patch14-384, 1152 wide with 27 layers, and this "
        "one is 448 wide with 6"
    )


def test_the_published_projection_head_has_2048_channels() -> None:
    assert reason("7b", 1024) == "its projection head has 2048 channels, and this one 1024"


@pytest.mark.parametrize("path", [None, "models/demo_student"])
@pytest.mark.parametrize("generated", [True, False])
def test_the_card_says_whose_terms_hold(generated: bool, path: str | None) -> None:
    config: Any = Defaults(data={"demo": {"scenes": 14} if generated else None})
    config |= {"model": Defaults(path=path), "run": "3drs"}
    family = LlavaFamily.new("small", 152_000, 14)
    student: Any = SimpleNamespace(family=family, teacher_channels=0)
    run: Any = SimpleNamespace(config=config, settings=SimpleNamespace(lora=None))
    card = _model_card(run, Defaults(loss={}, versions={}), [], student)
    assert ("ScanNet's terms of use apply" in card) is not generated
    assert ("ours and under Apache-2.0" in card) is generated
    backbone = "The licence of the backbone applies to these weights."
    assert (backbone in card.splitlines()) is (path is not None)
