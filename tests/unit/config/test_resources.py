"""What jobs ask of a machine."""

from threedrs.config.resources import train_ranks
from threedrs.models.backbones.family import SIZES


def test_ranks_are_those_of_the_resources_in_force() -> None:
    def train(**resources: object) -> object:
        return lambda name, asked: resources.get(name, asked)

    assert [train_ranks(size, train()) for size in SIZES] == [1, 1, 1, 8]
    assert train_ranks("7b", train(gpu=4)) == 4
    assert train_ranks("7b", train(gpu=0, tasks=16)) == 16
    assert train_ranks("7b", train(gpu=0)) == 1
    assert train_ranks("7b", train(gpu=None)) is None
    assert train_ranks("7b", train(tasks=None)) is None
