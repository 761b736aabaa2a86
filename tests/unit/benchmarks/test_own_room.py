"""benchmarks/own_room.py: the loss of answers with their own room's pictures and another's."""

import sys
from types import SimpleNamespace

import pytest
import torch

from fixtures.repository import ROOT
from fixtures.students import CAPTION, TEXT, pack
from threedrs.models.packing import IGNORE

sys.path.append(str(ROOT / "benchmarks"))

import own_room


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

    found = own_room.losses_by_way(Brightness(), rooms)

    assert tuple(found) == own_room.WAYS
    for way, values in zip(own_room.WAYS, ((1, 2, 5), None, (2, 5, 1), (2, 5, 1)), strict=True):
        if values:
            assert found[way] == [value * n for value in values for n in tokens]


def test_without_colours_an_image_is_grey_and_its_places_stay() -> None:
    room, another = bright(1).scene, bright(9).scene
    ways = own_room.shown(room, another)
    grey = ways["without colours"].rgb_VHWC
    assert (grey[..., :1] == grey).all()
    expected = room.rgb_VHWC.double().mean(-1).floor().to(torch.uint8)
    assert (grey[..., 0].int() - expected.int()).abs().max() <= 1
    assert torch.equal(ways["another's images"].patch_xyz_VGG3, room.patch_xyz_VGG3)
    assert torch.equal(ways["another's images"].rgb_VHWC, another.rgb_VHWC)


def test_one_room_has_no_other() -> None:
    with pytest.raises(AssertionError, match="no other"):
        own_room.losses_by_way(Brightness(), [bright(1)])
