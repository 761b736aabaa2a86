"""What the tests of prediction and of its resumption ask a model with."""

import pytest

from fixtures.inference_run import write_model, write_questions, write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def records(tmp_path):
    return write_questions(tmp_path / "scanqa_val.jsonl")
