"""A complete small training run's inputs, for the tests of the training package."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from threedrs.distributed.training_ranks import Ranks, start_ranks
from threedrs.instructions.record import Record, conversation, write_records
from threedrs.io.files import write_json
from threedrs.scannet.boxes import BoxSet
from threedrs.scenes.writer import SceneContents, write_scene_store
from threedrs.teachers.registry import teacher_channels
from threedrs.teachers.store import SceneOrigin, manifest_entry, open_scene, write_root, write_scene
from threedrs.training import loop
from threedrs.training.stop import StopRequest

REPOSITORY = Path(__file__).resolve().parents[2]
SCENES = ("scene0000_00", "scene0001_00")
FRAMES = 1
SHARD = Path("results/features/vggt-tiny/train-000.zarr")
OUT = Path("results/train/3drs")


def write_scene_inputs(folder: Path, scene: str, seed: int) -> None:
    """Write one scene's store: random pictures and two boxes that random patches see.

    The proposals are the same boxes in the opposite order.
    """
    generator = np.random.default_rng(seed)
    boxes = BoxSet(
        boxes=np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 2, 1, 1]], np.float32),
        ids=np.array([3, 5], np.int32),
        labels=("chair", "table"),
    )
    proposals = BoxSet(boxes=boxes.boxes[::-1], ids=np.array([0, 2], np.int32), labels=("", ""))
    masks = (
        generator.random((2, FRAMES, 27, 27)) > 0.5,
        generator.random((2, FRAMES, 14, 14)) > 0.5,
    )
    contents = SceneContents(
        rgb=generator.integers(0, 256, (FRAMES, 384, 384, 3), dtype=np.uint8),
        jpegs=[b"jpeg"] * FRAMES,
        depth=np.ones((FRAMES, 384, 384), np.uint16),
        poses=np.tile(np.eye(4), (FRAMES, 1, 1)),
        depth_intrinsic=np.eye(4),
        depth_size=(640, 480),
        patch_xyz=generator.uniform(-2, 2, (FRAMES, 14, 14, 3)).astype(np.float32),
        boxes={"gt": boxes, "pred": proposals},
        masks={"gt": masks, "pred": masks},
        attributes={
            "scene": scene,
            "split": "train",
            "frame_ids": list(range(FRAMES)),
            "invalid_depth": "reference",
        },
    )
    write_scene_store(folder / f"results/scenes/{scene}.zarr", contents)


def write_features(folder: Path, frame_ids: tuple[int, ...] = tuple(range(FRAMES))) -> None:
    """Write the teacher's shard of all scenes."""
    generator = np.random.default_rng(11)
    shard, channels = folder / SHARD, teacher_channels("vggt-tiny")
    entries = {}
    for scene in SCENES:
        origin = SceneOrigin(
            scene=scene,
            frame_ids=frame_ids,
            input_sha256="0" * 64,
            teacher="vggt-tiny",
            weights_sha256="1" * 64,
            settings_sha256="2" * 64,
        )
        features = generator.standard_normal((len(frame_ids), 14, 14, channels)).astype(np.float16)
        write_scene(shard, origin, features, input_size=(168, 224), seconds=0.1)
        entries[scene] = manifest_entry(open_scene(shard, scene))
    write_root(shard)
    write_json(
        shard / "manifest.json",
        {"format_version": 1, "channels": channels, "scenes": entries},
    )


def records(count: int) -> list[Record]:
    """Return ``count`` samples of both scenes: captions, answers and grounding by turns."""
    made = []
    for index in range(count):
        human, answer = [
            ("<image>\nWhat colour is the chair?", "brown"),
            ("<image>\nIdentify the object: the table by the door.", "<ground>"),
            ("<image>\nDescribe the object at <coord>.", "a small wooden table"),
        ][index % 3]
        made.append(
            Record(
                id=f"sample-{index}",
                benchmark=("scanqa", "scanrefer", "scan2cap")[index % 3],
                scene=SCENES[index // 3 % 2],
                conversations=conversation(human, answer),
                object_ids=[5] if answer == "<ground>" else None,
                box_input=[1.0, 1, 1, 2, 1, 1] if "<coord>" in human else None,
            )
        )
    return made


def write_run(folder: Path, *, samples: int = 8, **train: Any) -> Path:
    """Write all inputs of the run ``3drs`` below ``folder``; return its config.json."""
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    sections = ("data", "frames", "geometry", "boxes", "teacher", "supervision", "model", "train")
    resolved = {name: config[name] for name in sections}
    resolved["train"] |= {
        "deepspeed": str(REPOSITORY / "config/deepspeed/zero2.json"),
        "global_batch": 4,
        "pack": 2,
        "save_every": 100,
        "log_every": 1,
        "workers": 0,
    } | train
    resolved |= {
        "run": "3drs",
        "paths": {
            "mix": "results/instructions/mixes/full.jsonl",
            "scenes": "results/scenes",
            "features": {scene: str(SHARD) for scene in SCENES},
            "out": str(OUT),
        },
    }
    for seed, scene in enumerate(SCENES):
        write_scene_inputs(folder, scene, seed)
    write_features(folder)
    write_records(folder / resolved["paths"]["mix"], records(samples))
    path = folder / OUT / "config.json"
    write_json(path, resolved)
    return path


def write_evaluation(folder: Path, config_path: Path) -> None:
    """Write evaluation records of two benchmarks; the run evaluates on the way with them."""
    asked = {
        "scanqa": [("<image>\nWhat colour is the chair?", "brown", {"references": ["brown"]})],
        "scanrefer": [("<image>\nIdentify the table.", "<ground>", {"object_ids": [5]})],
    }
    names = {benchmark: f"results/instructions/{benchmark}_val.jsonl" for benchmark in asked}
    for benchmark, questions in asked.items():
        write_records(
            folder / names[benchmark],
            [
                Record(
                    id=f"{benchmark}-{index}",
                    benchmark=benchmark,
                    scene=SCENES[index % 2],
                    conversations=conversation(human, answer),
                    **fields,
                )
                for index in range(4)
                for human, answer, fields in questions
            ],
        )
    config = json.loads(config_path.read_text())
    settings = {"prompt": "as_trained", "max_new_tokens": 4, "boxes": "gt"}
    config["evaluation"] = {"records": list(names.values()), "settings": settings}
    write_json(config_path, config)


def edit_config(path: Path, **train: Any) -> None:
    """Change keys of the section ``train`` of a run's config.json."""
    config = json.loads(path.read_text())
    config["train"] |= train
    write_json(path, config)


@cache
def lone_ranks() -> Ranks:
    """Return this test process as a group of one.

    Of the environment that this leaves, DeepSpeed needs two names later on; the others would make
    the runs that tests start look for this group.
    """
    before = dict(os.environ)
    ranks = start_ranks()
    for name in set(os.environ) - set(before) - {"DS_ACCELERATOR", "LOCAL_RANK"}:
        del os.environ[name]
    return ranks


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the training of ``folder`` in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(loop, "start_ranks", lone_ranks)
    loop.train(json.loads((OUT / "config.json").read_text()), StopRequest())
