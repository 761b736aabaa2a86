"""What a grounding sample means where a run trains on detector proposals (``boxes.train: pred``).

Annotations name objects of the mesh, and a proposal is none of them. The proposal that overlaps an
object best stands for it, if the two share a quarter of their union, below which ScanRefer and
Multi3DRefer count it as another thing. An object without one is no target; a sample without any
teaches that no box is meant.
"""

from collections.abc import Sequence
from dataclasses import replace

from threedrs.errors import DataError
from threedrs.instructions.record import Record
from threedrs.scannet.boxes import BoxSet, box_iou_NM

LEAST_IOU = 0.25


def name_proposals(records: Sequence[Record], true: BoxSet, proposals: BoxSet) -> list[Record]:
    """Return a scene's records with proposals' ids, each once, in the place of their objects'.

    Args:
        records: of one scene; those without ``object_ids`` stay as they are.
        true: the scene's objects.
        proposals: the boxes that the student sees.

    Raises:
        DataError: an object has no true box.
    """
    best: dict[int, int | None] = {}
    iou_NM = box_iou_NM(true.boxes, proposals.boxes)
    for object_id, iou_M in zip(true.ids, iou_NM, strict=True):
        found = len(iou_M) > 0 and iou_M.max() >= LEAST_IOU
        best[int(object_id)] = int(proposals.ids[iou_M.argmax()]) if found else None
    named = []
    for record in records:
        if record.object_ids is None:
            named.append(record)
            continue
        missing = [object_id for object_id in record.object_ids if object_id not in best]
        if missing:
            raise DataError(
                f"{record.id}: object {missing[0]} has no true box in {record.scene}; "
                "convert the annotations again with this data"
            )
        chosen = [best[object_id] for object_id in record.object_ids]
        ids = list(dict.fromkeys(number for number in chosen if number is not None))
        named.append(replace(record, object_ids=ids))
    return named
