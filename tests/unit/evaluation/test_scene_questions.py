"""Questions about own captures: the file, and the replies of one model about all scenes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from fixtures.inference_run import write_store
from threedrs.errors import DataError
from threedrs.evaluation import ask, scene_questions
from threedrs.evaluation.answerer import StudentAnswerer
from threedrs.evaluation.scene_questions import answer_scene_questions, read_scene_questions
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings, PredictSettings


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"question": "Is it?"}, "line 2: expected an object such as"),
        ({"scene": "kitchn", "question": "Is it?"}, "hall, kitchen; did you mean kitchen?"),
        ({"scene": "kitchen", "queston": "Is it?"}, "line 2: queston is not a key; did you mean"),
        (
            {"scene": "kitchen", "question": "A?", "ground": "b"},
            "give one of question, ground, box",
        ),
    ],
)
def test_a_line_that_cannot_be_asked_is_named(tmp_path: Path, line: object, told: str) -> None:
    file = write(tmp_path / "q.jsonl", {"scene": "kitchen", "question": "Is it?"}, line)
    with pytest.raises(DataError, match=r"q\.jsonl: line 2: ") as caught:
        read_scene_questions(file, ["hall", "kitchen"])
    assert told in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no questions"):
        read_scene_questions(write(tmp_path / "q.jsonl"), ["kitchen"])


def test_one_model_answers_about_all_scenes_in_the_order_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, tokenizer = load_student(ModelSettings(seed=3), teacher_channels=0)
    save_student(student, tokenizer, tmp_path / "model")
    first, second, lost = "room-0001.a", "room-0002", "lost.room"
    for scene in (first, second):
        write_store(tmp_path, scene)
    loaded = []
    load = StudentAnswerer.load

    def watched(model: Path, settings: PredictSettings, device: torch.device) -> StudentAnswerer:
        loaded.append(model)
        return load(model, settings, device)

    monkeypatch.setattr(StudentAnswerer, "load", watched)
    # The frame of such a store is not an image.
    monkeypatch.setattr(ask, "draw_found", lambda store, boxes: Image.new("RGB", (8, 6)))
    asked = [
        {"scene": first, "question": "What is it?"},
        {"scene": second, "ground": "the chair"},
        {"scene": lost, "question": "Is it?"},
        {"scene": first, "box": [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]},
    ]
    questions = read_scene_questions(write(tmp_path / "q.jsonl", *asked), [first, second, lost])
    answer_scene_questions(
        tmp_path / "model",
        questions,
        tmp_path,
        PredictSettings(max_new_tokens=2),
        left_out={lost: "no frame has a pose"},
        out=tmp_path / "answers.jsonl",
        images=tmp_path / "images",
    )
    replies = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(loaded) == 1
    for reply, line in zip(replies, asked, strict=True):
        assert reply.items() >= line.items()
    assert ["answer" in reply for reply in replies] == [True, False, False, True]
    assert len(replies[1]["boxes"]) == scene_questions.SHOWN_BOXES
    assert Path(replies[1]["image"]) == tmp_path / "images/2.png"
    assert Path(replies[1]["image"]).is_file()
    assert replies[2]["error"] == "the scene is left out: no frame has a pose"
