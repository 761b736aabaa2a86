"""Questions to a trained model about one scene.

Each is put as a benchmark of its kind puts it (`threedrs.tasks.registry`), since the model knows no
other form. Opening costs one pass over the scene.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.scenes.store import SceneStore
from threedrs.tasks.base import Task
from threedrs.tasks.record import GROUND, Record, conversation
from threedrs.tasks.registry import DESCRIBE, FIND, QUESTION
from threedrs.visualization.box_overlay import (
    RUN_COLOURS,
    TRUE_COLOUR,
    DrawnBox,
    best_frame,
    draw_boxes,
)
from threedrs.visualization.room_map import draw_from_above
from threedrs.visualization.scene_view import SceneView

COLOURS = (TRUE_COLOUR, *RUN_COLOURS)  # of the best box and the next


@dataclass(frozen=True, kw_only=True)
class FoundBox:
    """A box with its score (cosine, -1 to 1); ``box`` (6,) centre and size, metres, world frame."""

    id: int
    label: str
    box: np.ndarray
    score: float

    def to_json(self) -> dict[str, Any]:
        """Return the box for scripts."""
        return {**asdict(self), "box": [round(float(number), 4) for number in self.box]}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The boxes of a scene, best first, and the score for "none of them is meant"."""

    boxes: list[FoundBox]
    none: float


class SceneDialogue:
    """A model and a scene, ready for questions.

    ``can_ground`` says whether the model has its grounding head, as loading would make a new one.

    Raises:
        StoreError: the store is damaged.
        MachineError: the GPU's memory is too small.
    """

    def __init__(self, answerer: StudentAnswerer, store: SceneStore, *, can_ground: bool) -> None:
        self.store = store
        self.can_ground = can_ground
        self.boxes = store.boxes(answerer.settings.boxes)
        self._answers = answerer.open(store)

    def answer(self, question: str) -> str:
        """Return the answer to a question."""
        human = QUESTION.prompt.format(question=question.strip())
        return self._answers.texts([self._record(QUESTION, human)])[0]

    def describe(self, box: Sequence[float]) -> str:
        """Return a description of what is in ``box``, centre and size in metres, world frame."""
        return self._answers.texts([self._record(DESCRIBE, DESCRIBE.prompt, box=list(box))])[0]

    def find(self, description: str) -> Found:
        """Return the scene's boxes, sorted by how well the description fits."""
        human = FIND.prompt.format(description=description.strip().capitalize())
        # The last score is that of the zero target, which in training meant "none of these".
        *scores, none = self._answers.scores([self._record(FIND, human, GROUND)])[0]
        boxes = [
            FoundBox(id=int(box_id), label=label, box=box, score=score)
            for box_id, label, box, score in zip(
                self.boxes.ids, self.boxes.labels, self.boxes.boxes, scores, strict=True
            )
        ]
        return Found(boxes=sorted(boxes, key=lambda found: -found.score), none=none)

    def draw(self, boxes: Sequence[FoundBox]) -> Image.Image:
        """Return an image of the frame that shows the first box best and the room from above."""
        return draw_found(self.store, boxes)

    def _record(
        self, task: Task, human: str, answer: str = "-", box: list[float] | None = None
    ) -> Record:
        return Record(
            id="question",
            benchmark=task.name,
            scene=self.store.scene,
            conversations=conversation(human, answer),
            box_input=box,
        )


def draw_found(store: SceneStore, boxes: Sequence[FoundBox]) -> Image.Image:
    """Return an image of the frame that shows the first box best and the room from above."""
    view = SceneView.of(store)
    drawn = [
        DrawnBox(box=found.box, colour=COLOURS[rank % len(COLOURS)], label=f"{rank + 1}")
        for rank, found in enumerate(boxes)
    ]
    # One frame shows what the box holds, the room from above where that is.
    frame = best_frame(view, drawn)
    parts = [draw_boxes(view, frame, drawn), draw_from_above(view, drawn, [frame])]
    size = (sum(part.width for part in parts), max(part.height for part in parts))
    image = Image.new("RGB", size, "white")
    left = 0
    for part in parts:
        image.paste(part, (left, 0))
        left += part.width
    return image
