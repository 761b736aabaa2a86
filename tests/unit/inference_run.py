"""Scene stores, questions and a stand-in for the model, for the tests of inference."""

from pathlib import Path

import numpy as np

from threedrs.evaluation.predict import predict_benchmark
from threedrs.evaluation.settings import PredictSettings
from threedrs.instructions.record import Record, conversation, write_records
from threedrs.scannet.boxes import make_box_set
from threedrs.scenes.writer import SceneContents, write_scene_store

SCENES = ("scene0000_00", "scene0001_00", "scene0002_00")
SETTINGS = PredictSettings(max_new_tokens=8)


def write_store(folder: Path, scene: str) -> None:
    """A scene of one frame, two true objects (ids 4 and 9) and three proposals."""
    generator = np.random.default_rng(int(scene[5:9]))

    def boxes(count, ids):
        sizes = np.concatenate(
            [generator.uniform(-1, 1, (count, 3)), generator.uniform(0.5, 1, (count, 3))], axis=1
        )
        return make_box_set([(row, i, "chair") for row, i in zip(sizes, ids, strict=True)])

    def masks(count):
        return np.ones((count, 1, 27, 27), bool), np.ones((count, 1, 14, 14), bool)

    write_scene_store(
        folder / f"{scene}.zarr",
        SceneContents(
            rgb=generator.integers(0, 255, (1, 384, 384, 3), dtype=np.uint8),
            jpegs=[b"jpeg"],
            depth=np.full((1, 384, 384), 1000, np.uint16),
            poses=np.eye(4)[None],
            depth_intrinsic=np.eye(4),
            depth_size=(640, 480),
            patch_xyz=generator.uniform(-1, 1, (1, 14, 14, 3)).astype(np.float32),
            boxes={"gt": boxes(2, (4, 9)), "pred": boxes(3, (0, 1, 2))},
            masks={"gt": masks(2), "pred": masks(3)},
            attributes={
                "scene": scene,
                "split": "val",
                "frame_ids": [0],
                "invalid_depth": "reference",
            },
        ),
    )


def question(index, benchmark, scene, **fields):
    human = "<image>Identify the object." if "object_ids" in fields else "<image> Is it brown?"
    answer = "<ground>" if "object_ids" in fields else "yes"
    return Record(
        id=f"q{index}",
        benchmark=benchmark,
        scene=scene,
        conversations=conversation(human, answer),
        **fields,
    )


def write_scenes(folder: Path) -> Path:
    for scene in SCENES:
        write_store(folder, scene)
    return folder


def write_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "weights").write_text("1")
    return folder


def write_questions(path: Path) -> Path:
    """Nine questions, the scenes interleaved."""
    write_records(
        path, [question(i, "scanqa", SCENES[i % 3], references=["yes", "no"]) for i in range(9)]
    )
    return path


class Fake:
    """Stands for a model; answers with the question's id, stops at the questions it is told to."""

    def __init__(self, stop_at=()):
        self.stop_at, self.asked, self.opened = set(stop_at), [], []

    def load(self, model, settings, local_rank):
        return self

    def open(self, store):
        self.opened.append(store.scene)
        return self

    def texts(self, records):
        if self.stop_at & {record.id for record in records}:
            raise KeyboardInterrupt
        self.asked += [record.id for record in records]
        return [f"answer {record.id}" for record in records]

    def scores(self, records):
        self.asked += [record.id for record in records]
        return [[0.1, 0.9, 0.2, -0.5]] * len(records)


def run(model, records, scenes, out, fake, settings=SETTINGS):
    predict_benchmark(model, records, scenes, settings, out, load=fake.load)
