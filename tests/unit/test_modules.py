"""A stage depends on the modules that it imports, and on no others."""

import pytest

from threedrs.workflow.code_inputs import PACKAGE, module_files


def names(*entries: str, **options) -> set[str]:
    return {path.relative_to(PACKAGE).as_posix() for path in module_files(*entries, **options)}


def test_metrics_are_no_part_of_prediction() -> None:
    predict = names("predict", without=["evaluation.registry", "metrics.bootstrap"])
    score = names("evaluation.score")
    metrics = {"metrics/captions.py", "metrics/exact_match.py", "evaluation/multi3drefer.py"}
    assert metrics <= score
    assert not metrics & predict
    assert {"predict.py", "models/student.py", "models/inference.py"} <= predict


def test_training_does_not_depend_on_evaluation_or_teachers_code() -> None:
    train = names("train", without=["teachers.registry", "training.evaluation"])
    assert {"training/loop.py", "models/supervision.py", "teachers/store.py"} <= train
    assert "teachers/vggt/aggregator.py" not in train
    assert "evaluation/score.py" not in train


def test_imports_inside_functions_count() -> None:
    assert "evaluation/predict.py" in names("predict")


def test_shared_helpers_are_left_out() -> None:
    assert not {"errors.py", "io/files.py", "__init__.py"} & names("evaluation.score")


def test_an_unknown_entry_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match="no_such is not a module"):
        module_files("no_such")
