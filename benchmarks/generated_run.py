"""The inputs of a training run at real sizes, generated: scene stores, features, mix, config.json.

The stores come from the package's own writers; what they hold is noise. Each scene takes 24 MB
(pixels and depth of 32 frames, 40 objects with their masks) and 26 MB of teacher features.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from threedrs.config.load import load_config, resolve_run
from threedrs.io.files import write_json
from threedrs.scannet.boxes import BoxSet
from threedrs.scenes.store import SceneContents, write_scene_store
from threedrs.tasks.record import Record, conversation, write_records
from threedrs.teachers.feature_store import (
    FORMAT_VERSION,
    SceneOrigin,
    manifest_entry,
    open_scene,
    write_root,
    write_scene,
)

REPOSITORY = Path(__file__).resolve().parents[1]
CHANNELS = 2048
OBJECTS = 40
SCENES_A_SHARD = 8


def scene_name(number: int) -> str:
    """Return the name of the ``number``-th generated scene."""
    return f"scene{number:04d}_00"


def shard_path(folder: Path, number: int) -> Path:
    """Return the feature store that holds the ``number``-th scene."""
    return folder / f"features/train-{number // SCENES_A_SHARD:03d}.zarr"


def write_inputs(folder: Path, *, scenes: int, frames: int, samples: int) -> None:
    """Write stores of ``scenes`` scenes of ``frames`` frames, and a mix of ``samples`` samples."""
    (folder / "scenes").mkdir(parents=True)
    firsts = range(0, scenes, SCENES_A_SHARD)
    workers = min(os.cpu_count() or 1, len(firsts))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_write_shard, folder, scenes=scenes, frames=frames), firsts))
    write_records(folder / "mix.jsonl", [record(n, scene_name(n % scenes)) for n in range(samples)])


def _write_shard(folder: Path, first: int, *, scenes: int, frames: int) -> None:
    shard, entries = shard_path(folder, first), {}
    for number in range(first, min(first + SCENES_A_SHARD, scenes)):
        scene, generator = scene_name(number), np.random.default_rng(number)
        write_scene_store(folder / f"scenes/{scene}.zarr", _contents(scene, frames, generator))
        origin = SceneOrigin(
            scene=scene,
            frame_ids=tuple(range(frames)),
            input_sha256="0" * 64,
            teacher="vggt",
            weights_sha256="1" * 64,
            settings_sha256="2" * 64,
        )
        features = generator.standard_normal((frames, 14, 14, CHANNELS), dtype=np.float32)
        write_scene(shard, origin, features.astype(np.float16), input_size=(392, 518), seconds=0)
        entries[scene] = manifest_entry(open_scene(shard, scene))
    write_root(shard)
    manifest = {"format_version": FORMAT_VERSION, "channels": CHANNELS, "scenes": entries}
    write_json(shard / "manifest.json", manifest)


def _contents(scene: str, frames: int, generator: np.random.Generator) -> SceneContents:
    corners = generator.uniform([-3, -3, 0, 0.2, 0.2, 0.2], [3, 3, 2, 2, 2, 2], (OBJECTS, 6))
    boxes = BoxSet(
        boxes=corners.astype(np.float32),
        ids=np.arange(OBJECTS, dtype=np.int32),
        labels=("chair",) * OBJECTS,
    )
    masks = (
        generator.random((OBJECTS, frames, 27, 27), dtype=np.float32) > 0.95,
        generator.random((OBJECTS, frames, 14, 14), dtype=np.float32) > 0.95,
    )
    return SceneContents(
        rgb=generator.integers(0, 256, (frames, 384, 384, 3), dtype=np.uint8),
        jpegs=[b"jpeg"] * frames,  # training reads none
        depth=generator.integers(500, 4000, (frames, 384, 384), dtype=np.uint16),
        poses=np.tile(np.eye(4), (frames, 1, 1)),
        depth_intrinsic=np.eye(4),
        depth_size=(640, 480),
        patch_xyz=generator.uniform(-3, 3, (frames, 14, 14, 3)).astype(np.float32),
        boxes={"gt": boxes, "pred": boxes},
        masks={"gt": masks, "pred": masks},
        attributes={
            "scene": scene,
            "split": "train",
            "frame_ids": list(range(frames)),
            "invalid_depth": "reference",
        },
    )


def record(number: int, scene: str) -> Record:
    """Return a sample: answer, grounding and caption by turns."""
    kind = number % 3
    human, answer = [
        ("<image>\nWhat colour is the chair between the table and the door?", "dark brown"),
        ("<image>\nIdentify the object: the chair is next to the window, by the desk.", "<ground>"),
        ("<image>\nDescribe the object at <coord> in detail.", "a small chair by the round table"),
    ][kind]
    return Record(
        id=f"sample-{number}",
        benchmark=("scanqa", "scanrefer", "scan2cap")[kind],
        scene=scene,
        conversations=conversation(human, answer),
        object_ids=[number % OBJECTS] if kind == 1 else None,
        box_input=[1.0, 1, 1, 2, 1, 1] if kind == 2 else None,
    )


def write_run(
    folder: Path, *, scenes: int, overrides: Mapping[str, Mapping[str, Any]], configfile: Path
) -> Path:
    """Write the resolved config.json of a run on the inputs in ``folder``; return its path.

    Args:
        folder: holds what `write_inputs` wrote.
        scenes: as many as were written.
        overrides: section -> keys, on top of config/config.yaml and ``configfile``.
        configfile: such as config/paper.yaml.
    """
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    # The features are there: the teacher's own weights are named, and never read.
    weights = folder / "teacher.pt"
    weights.touch()
    layers = [
        yaml.safe_load(configfile.read_text()),
        {"teacher": {"weights": str(weights)}, "data": {"root": str(folder)}},
    ]
    for layer in [*layers, overrides]:
        for section, values in layer.items():
            merged = isinstance(values, Mapping) and isinstance(config.get(section), dict)
            config[section] = {**config[section], **values} if merged else values
    file = Path(config["execution"]["deepspeed"])
    config["execution"]["deepspeed"] = str(file if file.is_absolute() else REPOSITORY / file)
    checked = load_config(config)
    run = next(iter(checked["runs"]))
    paths = {
        "mix": str(folder / "mix.jsonl"),
        "scenes": str(folder / "scenes"),
        "features": {scene_name(n): str(shard_path(folder, n)) for n in range(scenes)},
        "out": str(folder / "run"),
    }
    resolved = resolve_run(checked, run)
    if resolved["teacher"]["name"] == "none":
        paths["features"] = {}
    write_json(folder / "config.json", {"run": run, **resolved, "paths": paths})
    return folder / "config.json"
