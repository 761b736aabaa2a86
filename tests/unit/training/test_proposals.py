"""Grounding samples of runs that train on detector proposals."""

from pathlib import Path

import numpy as np
import pytest

from fixtures.training_run import SCENES, records, write_scene_inputs
from threedrs.errors import DataError
from threedrs.models.tokenizer import tiny_tokenizer
from threedrs.scannet.boxes import make_box_set
from threedrs.tasks.record import Record, conversation
from threedrs.training.pack_reader import PackReader, name_proposals
from threedrs.training.sampler import PackPlan

# A chair, a table beside it, and a lamp that no proposal sees; metres.
TRUE = make_box_set(
    [
        (np.array([0.0, 0, 0, 1, 1, 1]), 4, "chair"),
        (np.array([3.0, 0, 0, 2, 1, 1]), 7, "table"),
        (np.array([0.0, 9, 0, 1, 1, 1]), 8, "lamp"),
    ]
)
# The second row of the npz was empty. IoU with the table: 0 (number 0), 0.5 (2), 2/3 (3); with the
# chair: 1/3 (0); with the lamp: 0.2 (4), too little.
PROPOSALS = make_box_set(
    [
        (np.array([0.5, 0, 0, 1, 1, 1]), 0, ""),
        (np.array([2.5, 0, 0, 1, 1, 1]), 2, ""),
        (np.array([3.0, 0, 0, 3, 1, 1]), 3, ""),
        (np.array([0.0, 9, 0, 5, 1, 1]), 4, ""),
    ]
)


def grounding(object_ids: list[int]) -> Record:
    return Record(
        id="a",
        benchmark="multi3drefer",
        scene="scene0000_00",
        conversations=conversation("<image> Where is it?", "<ground>"),
        object_ids=object_ids,
    )


@pytest.mark.parametrize(
    ("object_ids", "expected"),
    [([4], [0]), ([7], [3]), ([7, 4], [3, 0]), ([8], []), ([8, 4], [0]), ([], [])],
)
def test_the_best_proposal_stands_for_an_object(object_ids: list[int], expected: list[int]) -> None:
    (named,) = name_proposals([grounding(object_ids)], TRUE, PROPOSALS)
    assert named.object_ids == expected


def test_one_proposal_for_two_objects_is_one_target() -> None:
    twins = make_box_set([(np.array([0.0, 0, 0, 1, 1, 1]), number, "chair") for number in (1, 2)])
    (named,) = name_proposals([grounding([1, 2])], twins, PROPOSALS)
    assert named.object_ids == [0]


def test_a_scene_without_proposals_has_no_target() -> None:
    (named,) = name_proposals([grounding([4])], TRUE, make_box_set([]))
    assert named.object_ids == []


def test_an_object_without_a_true_box() -> None:
    with pytest.raises(DataError, match="a: object 5 has no true box in scene0000_00; convert"):
        name_proposals([grounding([5])], TRUE, PROPOSALS)


@pytest.mark.parametrize(("boxes", "row"), [("gt", 1), ("pred", 0)])
def test_a_pack_has_the_rows_of_its_box_set(tmp_path: Path, boxes: str, row: int) -> None:
    write_scene_inputs(tmp_path, SCENES[0], seed=0)  # proposals in the opposite order
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<ground>", "<coord>"])
    reader = PackReader(
        records=records(3),
        scenes=tmp_path / "results/scenes",
        features={},
        boxes=boxes,
        tokenizer=tokenizer,
        label_chat_tokens=True,
        max_length=4096,
    )
    pack = reader.read(PackPlan(scene=SCENES[0], indices=(0, 1, 2)))
    assert [sample.target_rows for sample in pack.samples] == [None, [row], None]
    np.testing.assert_array_equal(pack.scene.boxes_N6[row], [1, 1, 1, 2, 1, 1])
