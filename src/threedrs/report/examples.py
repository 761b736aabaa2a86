"""Sampled questions with pictures: what was asked, what each run answered, and where."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from threedrs.evaluation.answers import normalise_answer
from threedrs.evaluation.predictions import Prediction
from threedrs.instructions.record import Record
from threedrs.report.overlay import DrawnBox, best_frame, contact_sheet, draw_boxes
from threedrs.scannet.boxes import box_iou_NM
from threedrs.scenes.store import SceneStore

TRUE_COLOUR = "#35c759"
RUN_COLOURS = ("#ff9f0a", "#0a84ff", "#bf5af2", "#ff453a")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one run said, and whether it was right (None: not a matter of right and wrong)."""

    run: str
    text: str
    right: bool | None
    colour: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question, for the page. ``picture`` is a data URI."""

    benchmark: str
    id: str
    scene: str
    question_type: str
    question: str
    references: Sequence[str]
    picture: str
    alt: str
    answers: list[Answer] = field(default_factory=list)


def choose(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` evenly spaced row numbers of ``count`` rows."""
    return sorted(set(np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()))


def make_example(record: Record, predictions: Mapping[str, Prediction], scenes: Path) -> Example:
    """Return the example of one record, with each run's prediction for it."""
    store = SceneStore.open(scenes / f"{record.scene}.zarr")
    first = next(iter(predictions.values()))
    drawn = [DrawnBox(box=box, colour=TRUE_COLOUR) for box in first.gt]
    answers = []
    for index, (run, prediction) in enumerate(predictions.items()):
        colour = RUN_COLOURS[index % len(RUN_COLOURS)]
        if prediction.scores is None:
            answers.append(_text_answer(run, prediction, colour))
        else:
            answer, box = _grounding_answer(run, prediction, colour)
            answers.append(answer)
            if box is not None:
                drawn.append(DrawnBox(box=box, colour=colour))
    if record.box_input is not None:
        drawn.append(DrawnBox(box=np.asarray(record.box_input), colour=TRUE_COLOUR))
    if drawn:
        frame = best_frame(store, drawn[0].box)
        picture = draw_boxes(store, frame, drawn)
        alt = f"Frame {store.frame_ids[frame]} of {record.scene} with {len(drawn)} boxes"
    else:
        picture = contact_sheet(store)
        alt = f"Frames of {record.scene}"
    return Example(
        benchmark=record.benchmark,
        id=record.id,
        scene=record.scene,
        question_type=record.question_type or "",
        question=record.conversations[0]["value"].replace("<image>", "").strip(),
        references=list(record.references or ()),
        picture=_data_uri(picture),
        alt=alt,
        answers=answers,
    )


def _text_answer(run: str, prediction: Prediction, colour: str) -> Answer:
    right = None
    if prediction.benchmark in ("scanqa", "sqa3d"):
        said = normalise_answer(prediction.prediction or "")
        right = said in {normalise_answer(text) for text in prediction.references}
    return Answer(run=run, text=prediction.prediction or "(empty)", right=right, colour=colour)


def _grounding_answer(
    run: str, prediction: Prediction, colour: str
) -> tuple[Answer, np.ndarray | None]:
    """The best proposal; for Multi3DRefer the zero target may win."""
    assert prediction.scores is not None
    scores, boxes = prediction.scores, prediction.boxes
    nothing = prediction.benchmark == "multi3drefer" and int(np.argmax(scores)) == len(boxes)
    if nothing or not len(boxes):
        right = len(prediction.gt) == 0
        return Answer(run=run, text="no such object", right=right, colour=colour), None
    best = int(np.argmax(scores[:-1]))
    overlap = box_iou_NM(boxes[best : best + 1], prediction.gt) if len(prediction.gt) else None
    iou = 0.0 if overlap is None else float(overlap.max())
    text = f"proposal {best}, IoU {iou:.2f}"
    return Answer(run=run, text=text, right=iou >= 0.25, colour=colour), boxes[best]


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
