"""benchmarks/own_room.py: the loss of answers with their own room's pictures and another's."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from fixtures.repository import ROOT
from fixtures.students import CAPTION, TEXT, pack
from threedrs.models.packing import IGNORE

SPEC = importlib.util.spec_from_file_location("own_room", ROOT / "benchmarks" / "own_room.py")
own_room = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(own_room)


class Brightness:
    """A student whose mean loss is the brightness of the first pixel it is shown."""

    device = torch.device("cpu")

    def __call__(self, shown, supervision):
        value = float(shown.scene.rgb_VHWC.flatten()[0])
        return SimpleNamespace(text_K=torch.full((len(shown.samples),), value))


def bright(value: int):
    """A pack of two answers whose room's first pixel is ``value``."""
    made = pack([TEXT, CAPTION])
    made.scene.rgb_VHWC.flatten()[0] = value
    return made


def test_each_answer_meets_the_next_rooms_pictures_and_sums_over_its_tokens() -> None:
    rooms = [bright(1), bright(2), bright(5)]
    tokens = [int((sample.labels != IGNORE).sum()) for sample in rooms[0].samples]

    pairs = own_room.own_and_other(Brightness(), rooms)

    shown = [(1, 2), (2, 5), (5, 1)]
    assert pairs == [(own * n, other * n) for own, other in shown for n in tokens]


def test_one_room_has_no_other() -> None:
    with pytest.raises(AssertionError, match="no other"):
        own_room.own_and_other(Brightness(), [bright(1)])
