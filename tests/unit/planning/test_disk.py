"""What results take on disk: against the students themselves, and by hand."""

import pytest

from threedrs.config.schema import LORA_TARGETS
from threedrs.models.model_settings import ModelSettings
from threedrs.planning.disk import (
    ADAPTER_PARAMETERS,
    PARAMETERS,
    checkpoint_bytes,
    feature_bytes,
    model_bytes,
)
from threedrs.planning.training import empty_student


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters_are_the_students(size: str) -> None:
    student = empty_student(ModelSettings(size=size, random_weights=size == "7b"), 2048)
    counts = {
        name: sum(parameter.numel() for parameter in group)
        for name, group in student.parameter_groups().items()
    }
    assert PARAMETERS[size] == pytest.approx(counts, rel=0.02)
    adapted = [
        module.in_features + module.out_features
        for name, module in student.language_model.named_modules()
        if name.endswith(LORA_TARGETS)
    ]
    assert ADAPTER_PARAMETERS[size] == pytest.approx(sum(adapted), rel=0.02)


def test_checkpoints_hold_what_is_trained() -> None:
    train = {"tunable": list(PARAMETERS["7b"]), "lora": None}
    run = {"model": {"size": "7b"}, "train": train}
    assert checkpoint_bytes(run) == pytest.approx(97.5e9, rel=1e-3)
    assert model_bytes(run) == pytest.approx(16.2e9, rel=5e-3)
    train |= {"tunable": ["language_model", "heads"], "lora": {"rank": 16}}
    assert checkpoint_bytes(run) == pytest.approx(12 * (16 * 2.52e6 + 9.2e7))
    assert model_bytes(run) == pytest.approx(2 * (16 * 2.52e6 + 9.2e7))


def test_features_of_all_patches_take_more() -> None:
    assert feature_bytes({"grid": 14}, 2048) == 14 * 14 * 2048 * 2
    assert feature_bytes({"grid": "full"}, 2048) == 37 * 28 * 2048 * 2
