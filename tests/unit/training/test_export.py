"""What the card of a model says about the published code."""

from types import SimpleNamespace
from typing import Any

import pytest

from threedrs.models.backbones.llava import LlavaFamily
from threedrs.training.export import _published_note


def card_line(size: str, channels: int) -> str:
    family = LlavaFamily.new(size, 152_000, 14)
    student: Any = SimpleNamespace(family=family, teacher_channels=channels)
    return _published_note("3drs", student, adapter=False)


@pytest.mark.parametrize("channels", [0, 2048])
def test_the_card_says_whether_the_published_code_loads_the_model(channels: int) -> None:
    """That code builds SigLIP so400m (1152 wide, 27 layers) whatever config.json says."""
    assert card_line("7b", channels).startswith("name the folder `")
    assert card_line("small", channels) == (
        "it does not load there, where the vision tower is google/siglip-so400m-patch14-384, "
        "1152 wide with 27 layers, and here it is 448 wide with 6"
    )
    assert "here it is 48 wide with 3" in card_line("tiny", channels)
