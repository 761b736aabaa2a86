"""What of the settings of prediction reaches a scene's session."""

from pathlib import Path

import pytest

from fixtures.inference_run import SCENES
from fixtures.students import student, tokenizer
from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.models.model_settings import PredictSettings
from threedrs.scenes.store import SceneStore


@pytest.mark.parametrize(
    ("decoding", "penalty", "ends"), [("greedy", 1, 1), ("reference", 1.05, 2)]
)
def test_the_settings_choose_the_decoding(
    scenes: Path, decoding: str, penalty: float, ends: int
) -> None:
    settings = PredictSettings(decoding=decoding)
    answerer = StudentAnswerer(student(), tokenizer(), settings)
    answers = answerer.open(SceneStore.open(scenes / f"{SCENES[0]}.zarr"))
    assert answers.session.decoding.penalty == penalty
    assert len(answers.session.decoding.ends) == ends
