"""Questions to a model: answers, boxes with a picture, descriptions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.inference_run import write_store
from threedrs.evaluation import ask
from threedrs.evaluation.answerer import SceneAnswers, StudentAnswerer
from threedrs.evaluation.ask import SceneDialogue, draw_found
from threedrs.evaluation.dialogue import Request
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings, PredictSettings
from threedrs.scenes.store import SceneStore

SCENE = "scene0003_00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that answers words, and a scene."""
    folder = tmp_path_factory.mktemp("ask")
    student, tokenizer = load_student(ModelSettings(seed=3), teacher_channels=0)
    with torch.no_grad():
        student.language_model.lm_head.weight[tokenizer.convert_tokens_to_ids("<|im_end|>")] = 0
    save_student(student, tokenizer, folder / "model")
    write_store(folder, SCENE)
    return folder


@pytest.fixture(scope="module")
def dialogue(folder: Path) -> SceneDialogue:
    settings = PredictSettings(max_new_tokens=5)
    answerer = StudentAnswerer.load(folder / "model", settings, torch.device("cpu"))
    return SceneDialogue(answerer, SceneStore.open(folder / f"{SCENE}.zarr"))


def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """Collect the records that reach the model."""
    records: list = []
    for name, inner in (("texts", SceneAnswers.texts), ("scores", SceneAnswers.scores)):

        def watch(answers: SceneAnswers, batch: list, inner: Any = inner) -> list:
            records.extend(batch)
            return inner(answers, batch)

        monkeypatch.setattr(SceneAnswers, name, watch)
    return records


def reply(dialogue: SceneDialogue, top: int = 3, **request: Any) -> dict:
    return dialogue.reply(Request(**request), Path("found.png"), top)


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """Draw nothing, as the frame of such a store is not an image; collect the boxes to draw."""
    drawn: list = []
    monkeypatch.setattr(ask, "save_image", lambda image, path: None)
    monkeypatch.setattr(ask, "draw_found", lambda store, boxes: drawn.append(boxes))
    return drawn


def test_questions_take_the_prompts_of_the_benchmarks(
    dialogue: SceneDialogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = asked(monkeypatch)
    spaced, plain, described = (
        reply(dialogue, **request)["answer"]
        for request in (
            {"question": " Is it brown? "},
            {"question": "Is it brown?"},
            {"box": [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]},
        )
    )
    assert spaced == plain != ""
    assert described != ""
    reply(dialogue, ground=" the brown chair by the TV. It Is tall")
    assert [record.human for record in records[1:]] == [
        "<image> Is it brown? Answer the question simply.",
        "<image> Given an object located at <coord> , describe the object in detail.",
        "<image>Identify the object according to the following description.\n"
        "The brown chair by the tv. it is tall",
    ]
    assert records[2].box_input == [0, 0, 1, 1, 1, 1]


def test_found_boxes_are_the_proposals_best_first(
    dialogue: SceneDialogue, nothing_drawn: list
) -> None:
    found = reply(dialogue, ground="a chair")
    assert sorted(one["id"] for one in found["boxes"]) == [0, 1, 2]
    scores = [one["score"] for one in found["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert all(-1.001 <= score <= 1.001 for score in [*scores, found["none"]])
    assert found["winner"] == (found["boxes"][0] if scores[0] > found["none"] else None)
    rows = [list(dialogue.boxes.ids).index(one["id"]) for one in found["boxes"]]
    for row, one in zip(rows, found["boxes"], strict=True):
        assert np.allclose(one["box"], dialogue.boxes.boxes[row], atol=1e-4)
    assert np.array_equal(nothing_drawn[0], dialogue.boxes.boxes[rows])
    few = reply(dialogue, top=2, ground="a chair")
    assert (few["boxes"], few["of"]) == (found["boxes"][:2], 3)


def test_the_picture_shows_the_frame_and_the_room(tmp_path: Path) -> None:
    class Store:
        """What drawing reads of a store: one camera at the origin that looks along x."""

        scene, frame_ids, depth_size = SCENE, [0], (64, 48)

        def jpegs(self) -> list[bytes]:
            Image.new("RGB", (64, 48), "gray").save(tmp_path / "frame.jpg")
            return [(tmp_path / "frame.jpg").read_bytes()]

        def rgb(self) -> np.ndarray:
            return np.full((1, 384, 384, 3), 128, np.uint8)

        def depth(self) -> np.ndarray:
            return np.full((1, 384, 384), 3000, np.uint16)

        def poses(self) -> np.ndarray:
            pose = np.eye(4)
            pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
            return pose[None]

        def depth_intrinsic(self) -> np.ndarray:
            return np.array([[60.0, 0, 32, 0], [0, 60, 24, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

    box = np.array([2.0, 0, 0, 0.5, 0.5, 0.5])
    picture = draw_found(Store(), [box])
    assert picture.width > picture.height
    pixels = np.asarray(picture).reshape(-1, 3).astype(int)
    green = np.abs(pixels - [0x4C, 0xD9, 0x64]).max(axis=1) < 30
    assert green.sum() > 100
