"""A trained model and one scene: what it is asked becomes a reply.

Each question is put as a benchmark of its kind puts it (`threedrs.tasks.registry`), since the model
knows no other form. Opening costs one pass over the scene. `threedrs.evaluation.dialogue` says what
may be asked and what a reply holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from threedrs.errors import DataError
from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.evaluation.dialogue import Request
from threedrs.io.images import save_image
from threedrs.scenes.store import SceneStore
from threedrs.tasks.base import Task
from threedrs.tasks.record import GROUND, Record, conversation
from threedrs.tasks.registry import DESCRIBE, FIND, QUESTION
from threedrs.visualization import box_overlay
from threedrs.visualization.room_map import draw_from_above
from threedrs.visualization.scene_view import SceneView

COLOURS = (box_overlay.TRUE_COLOUR, *box_overlay.RUN_COLOURS)  # of the best box and the next


class SceneDialogue:
    """A model and a scene, ready for questions.

    Raises:
        StoreError: the store is damaged.
        MachineError: the GPU's memory is too small.
    """

    def __init__(self, answerer: StudentAnswerer, store: SceneStore) -> None:
        self.store = store
        self.can_ground = answerer.can_ground
        self.boxes = store.boxes(answerer.settings.boxes)
        self._answers = answerer.open(store)

    def reply(self, request: Request, image: Path, top: int) -> dict[str, Any]:
        """Return the reply to a request.

        Where an object is to be found, the best ``top`` boxes are told, and drawn to ``image``.

        Raises:
            DataError: the model cannot find objects, or the scene has no boxes to find one among.
        """
        asked = request.to_json()
        if request.ground is not None:
            return asked | self._find(request.ground, image, top)
        if request.question is not None:
            human = QUESTION.prompt.format(question=request.question.strip())
            record = self._record(QUESTION, human)
        else:
            record = self._record(DESCRIBE, DESCRIBE.prompt, box=request.box)
        return {**asked, "answer": self._answers.texts([record])[0]}

    def _find(self, description: str, image: Path, top: int) -> dict[str, Any]:
        # New heads would give scores, too, by chance.
        if not self.can_ground:
            raise DataError(
                "the model has no grounding head, so it finds no objects; ask it questions"
            )
        # Of nothing to choose from "none of them" would win, which would look like an answer.
        if not len(self.boxes):
            raise DataError(
                f"{self.store.path}: holds no boxes to find an object among; questions and --box "
                "need none"
            )
        human = FIND.prompt.format(description=description.strip().capitalize())
        # The last score is that of the zero target, which in training meant "none of these".
        *scores, none = self._answers.scores([self._record(FIND, human, GROUND)])[0]
        best_first = np.argsort(-np.array(scores), kind="stable").tolist()
        best = [
            {
                "id": int(self.boxes.ids[row]),
                "label": self.boxes.labels[row],
                "box": [round(float(number), 4) for number in self.boxes.boxes[row]],
                "score": scores[row],
            }
            for row in best_first[:top]
        ]
        save_image(draw_found(self.store, self.boxes.boxes[best_first[:top]]), image)
        return {
            "winner": best[0] if best[0]["score"] > none else None,
            "none": none,
            "boxes": best,
            "of": len(scores),
            "image": str(image),
        }

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


def draw_found(store: SceneStore, boxes: Sequence[np.ndarray]) -> Image.Image:
    """Return an image of the frame that shows the first box best and the room from above.

    Boxes (6,) are centre and size, metres, world frame.
    """
    view = SceneView.of(store)
    drawn = [
        box_overlay.DrawnBox(box=box, colour=COLOURS[rank % len(COLOURS)], label=f"{rank + 1}")
        for rank, box in enumerate(boxes)
    ]
    # One frame shows what the box holds, the room from above where that is.
    frame = box_overlay.best_frame(view, drawn)
    parts = [box_overlay.draw_boxes(view, frame, drawn), draw_from_above(view, drawn, [frame])]
    size = (sum(part.width for part in parts), max(part.height for part in parts))
    image = Image.new("RGB", size, "white")
    left = 0
    for part in parts:
        image.paste(part, (left, 0))
        left += part.width
    return image
