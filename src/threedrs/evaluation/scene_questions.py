"""What a run is asked about a split of own captures, and its replies.

A questions file has a JSON object a line: what `threedrs chat --json` takes, and the ``scene``. A
reply is that of `threedrs.evaluation.dialogue` with the scene, or has an ``error`` in place of the
answer. Every start of a workflow imports this, so the model's packages are imported by the
answering alone.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from threedrs.errors import ConfigError, DataError, choose_one
from threedrs.evaluation.dialogue import Request
from threedrs.io.files import read_json_lines, write_json_lines
from threedrs.models.model_settings import PredictSettings
from threedrs.workflow.processes import quick_imports

SHOWN_BOXES = 3
logger = logging.getLogger(__name__)


class SceneQuestion(Request):
    """One thing to ask about one scene."""

    scene: str
    """Name of the scene."""


def read_scene_questions(path: Path, scenes: Collection[str]) -> list[SceneQuestion]:
    """Return the questions of a file.

    Raises:
        DataError: the file is missing or empty, or a line cannot be asked, or is about another
            scene than ``scenes``.
    """
    questions = []
    for number, value in enumerate(read_json_lines(path), start=1):
        where = f"{path}: line {number}"
        if not isinstance(value, dict) or not isinstance(value.get("scene"), str):
            raise DataError(
                f'{where}: expected an object such as {{"scene": "kitchen", "question": "What is '
                'it?"}'
            )
        scene = value["scene"]
        if scene not in scenes:
            raise DataError(f"{where}: scene is {scene!r}; {choose_one(scene, sorted(scenes))}")
        try:
            questions.append(SceneQuestion(**value))
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from error
    if not questions:
        raise DataError(f"{path}: holds no questions; add one, or remove the key that names it")
    return questions


def answer_scene_questions(
    model: Path,
    questions: Sequence[SceneQuestion],
    scenes: Path,
    settings: PredictSettings,
    *,
    left_out: Mapping[str, str],
    out: Path,
    images: Path,
) -> None:
    """Write a reply a line to ``out``, in the order of the questions; the model is loaded once.

    The images of the boxes found go to ``images``, as ``<line of the question>.png``. ``left_out``
    gives the reasons for captures that cannot be used.

    Raises:
        CheckpointError: the model cannot be loaded.
        StoreError: a store is damaged.
        MachineError: the GPU's memory is too small.
    """
    with quick_imports():
        from threedrs.distributed.gpus import own_device
        from threedrs.evaluation.answerer import StudentAnswerer, open_store
        from threedrs.evaluation.ask import SceneDialogue

    images.mkdir(parents=True, exist_ok=True)
    answerer = StudentAnswerer.load(model, settings, own_device())
    replies: dict[int, dict[str, Any]] = {}
    # Scene by scene, whose pass over the images is what costs.
    for scene in dict.fromkeys(question.scene for question in questions):
        dialogue = None
        if scene not in left_out:
            dialogue = SceneDialogue(answerer, open_store(scenes, scene))
        for number, question in enumerate(questions, start=1):
            if question.scene != scene:
                continue
            try:
                if dialogue is None:
                    raise DataError(f"the scene is left out: {left_out[scene]}")
                reply = dialogue.reply(question, images / f"{number}.png", SHOWN_BOXES)
            except DataError as error:  # of this question; the others can be answered
                reply = {**question.to_json(), "error": str(error)}
            replies[number] = {"scene": scene, **reply}
        logger.info("%s: %d of %d questions answered", scene, len(replies), len(questions))
    write_json_lines(out, (replies[number] for number in sorted(replies)))
