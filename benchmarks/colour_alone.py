"""Do students see colours? What they find where a description's colour alone tells which is meant.

    python benchmarks/colour_alone.py RUN... [--results results]

reads the ScanRefer predictions of runs on generated rooms. Of descriptions such as "the red chair
in the room." where the room has chairs of other colours too, it prints for each run how many there
are; the percentage of chosen boxes that are an object of the class, and that are the object; the
share of the second in the first; and what chance gives within the class.
"""

import argparse
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from run_results import made, predictions
from threedrs.demo.room_objects import PALETTE
from threedrs.errors import one_line_errors
from threedrs.scannet.boxes import BoxSet, box_iou_NM
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import Record, read_records

LEAST_IOU = 0.25  # of a chosen box and the object that it is
# The wordings of `threedrs.demo.language.describe` without a relation.
BY_COLOUR = re.compile(
    rf"(?:the|this is an?|there is an?) (?:{'|'.join(PALETTE)}) ([a-z ]+?)(?: in the room)?\."
)


def class_by_colour(record: Record) -> str | None:
    """Return the class of a description that names a colour and a class alone, or None."""
    found = BY_COLOUR.fullmatch(record.human.rpartition("\n")[2].lower())
    return found[1] if found else None


def outcome(chosen: list[float], target: int, label: str, boxes: BoxSet) -> tuple[bool, bool]:
    """Return whether the chosen box is an object of the class, and whether it is the target."""
    iou_N = box_iou_NM(np.array([chosen], np.float32), boxes.boxes)[0]
    best = int(iou_N.argmax())
    if iou_N[best] < LEAST_IOU:
        return False, False
    return boxes.labels[best] == label, int(boxes.ids[best]) == target


def outcomes(results: Path, run: str) -> Iterator[tuple[bool, bool, float]]:
    """Yield of each description by colour alone its `outcome`, and the chance within the class."""
    records = {r.id: r for r in read_records(made(results, "instructions/scanrefer_val.jsonl"))}
    stores: dict[str, BoxSet] = {}
    for line in predictions(results, run, "scanrefer"):
        record = records[line["id"]]
        if record.scene not in stores:
            store = SceneStore.open(results / "scenes" / f"{record.scene}.zarr")
            stores[record.scene] = store.boxes("gt")
        boxes, label = stores[record.scene], class_by_colour(record)
        if label is None or boxes.labels.count(label) < 2:
            continue
        assert record.object_ids is not None
        chosen = line["boxes"][int(np.argmax(line["scores"]))]
        yield (
            *outcome(chosen, record.object_ids[0], label, boxes),
            1 / boxes.labels.count(label),
        )


def row(results: Path, run: str) -> str:
    """Return a run's row of the table."""
    found = list(outcomes(results, run))
    if not found:
        return f"| {run} | 0 | | | | |"
    classes, objects, chances = map(statistics.mean, zip(*found, strict=True))
    within = objects / classes if classes else 0.0
    cells = (classes, objects, within, chances)
    return f"| {run} | {len(found)} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    print("| run | n | class | object | object within class | chance |\n|---|---|---|---|---|---|")
    for run in arguments.runs:
        print(row(arguments.results, run), flush=True)


if __name__ == "__main__":
    with one_line_errors("colour_alone"):
        main()
