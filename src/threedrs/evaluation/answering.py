"""The trained student answering questions: one scene store in, one session a scene.

Reads no teacher features. Holds one scene at a time; a scene costs one pass over its visual tokens,
a grounding question one short pass, a text question one short pass and one an answer token.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from threedrs.errors import DataError, MachineError
from threedrs.evaluation.settings import PredictSettings
from threedrs.instructions.record import Record
from threedrs.models.checkpoint import load_student
from threedrs.models.prompt import build_query
from threedrs.models.samples import SceneInputs
from threedrs.models.session import SceneSession
from threedrs.models.settings import ModelSettings
from threedrs.scenes.store import SceneStore


def choose_device(local_rank: int) -> torch.device:
    """Return the GPU of this rank, or the CPU where there is no GPU at all.

    Raises:
        MachineError: more ranks than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise MachineError(
            f"local rank {local_rank} has no GPU ({torch.cuda.device_count()} found); start as "
            "many ranks a node as it has GPUs"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def _memory_errors(where: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"{where}: the GPU's memory is full; use a larger GPU or stop other processes on it"
        ) from error


class StudentAnswerer:
    """A trained student, loaded once.

    Args:
        model: folder of the trained model.
        settings: prompt style, length of answers, box set.
        local_rank: which GPU of this node.

    Raises:
        CheckpointError: the model cannot be loaded.
        MachineError: there is no GPU for this rank.
    """

    def __init__(self, model: Path, settings: PredictSettings, local_rank: int) -> None:
        self.settings = settings
        device = choose_device(local_rank)
        model_settings = ModelSettings(
            path=model,
            attention=settings.attention,
            coordinate_dtype=settings.coordinate_dtype,
        )
        student, self.tokenizer = load_student(model_settings, teacher_channels=None)
        with _memory_errors(str(model)):
            self.student = student.to(device).eval()

    def open(self, store: SceneStore) -> "SceneAnswers":
        """Return the scene, ready for questions."""
        boxes = store.boxes(self.settings.boxes)
        fine_NVFF, coarse_NVGG = store.masks(self.settings.boxes)
        inputs = SceneInputs(
            scene=store.scene,
            rgb_VHWC=torch.from_numpy(store.rgb()),
            patch_xyz_VGG3=torch.from_numpy(store.patch_xyz()),
            boxes_N6=torch.from_numpy(boxes.boxes),
            fine_NVFF=torch.from_numpy(fine_NVFF),
            coarse_NVGG=torch.from_numpy(coarse_NVGG),
            teacher_VGGC=None,
        )
        with _memory_errors(store.scene):
            session = SceneSession(
                self.student, self.tokenizer, inputs, prompt=self.settings.prompt
            )
        return SceneAnswers(self, session, len(boxes))


class SceneAnswers:
    """One scene's open session."""

    def __init__(self, answerer: StudentAnswerer, session: SceneSession, boxes: int) -> None:
        self._answerer = answerer
        self._session = session
        self._boxes = boxes

    def text(self, record: Record) -> str:
        """Return the greedy answer to a text question."""
        settings = self._answerer.settings
        query = build_query(record, self._answerer.tokenizer, prompt=settings.prompt)
        with _memory_errors(f"{record.scene}, question {record.id}"):
            return self._session.answer(query, settings.max_new_tokens)

    def scores(self, record: Record) -> list[float]:
        """Return the score of each box of the scene and, last, of the zero target.

        Raises:
            DataError: the model gave a score that is not finite.
        """
        query = build_query(record, self._answerer.tokenizer, prompt=self._answerer.settings.prompt)
        with _memory_errors(f"{record.scene}, question {record.id}"):
            scores = self._session.ground(query)
        assert len(scores) == self._boxes + 1, "one score a box and one for the zero target"
        if not all(map(math.isfinite, scores)):
            raise DataError(
                f"{record.scene}, question {record.id}: the model's scores are not finite; its "
                "training diverged, or the checkpoint is damaged"
            )
        return scores
