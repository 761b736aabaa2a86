"""A whole run with unusual settings against plain code: that each setting arrives in the losses."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fixtures.training_run import OUT, SHARD, records, run, write_run
from threedrs.config.schema import SupervisionSettings
from threedrs.io.files import write_json
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Pack
from threedrs.models.prompt import build_sample
from threedrs.models.scene_inputs import read_scene
from threedrs.models.visual_tokens import position_embedding
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import Record
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.known_teachers import teacher_channels
from threedrs.training.run_log import growing_log, read_rows
from threedrs.training.sampler import plan_batches

SEED, EPOCHS, SAMPLES, BATCH = 7, 2, 10, 4
STEPS = EPOCHS * 3  # batches of 4, 4 and 2 samples
RATE, RATE_VISION_TOWER = 3e-3, 1e-3
PROPOSALS = [0, 2]  # ids; the first one is the table, object 5, which all grounding samples mean


class PlainRun:
    """The run below, one sample at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.student, self.tokenizer = load_student(
            ModelSettings(seed=SEED), teacher_channels=teacher_channels("vggt-tiny")
        )
        # Coordinates in bfloat16, whatever a student makes of its own setting.
        embedding = partial(position_embedding, channels=96, dtype=torch.bfloat16)
        self.student.position_embedding = embedding  # type: ignore[method-assign]
        self.layer_TD = torch.zeros(0)
        self.student.language_model.model.layers[1].register_forward_hook(self.keep_layer)
        named = dict(self.student.named_parameters())
        vision = [value for name, value in named.items() if name.startswith("vision_tower.")]
        others = [value for name, value in named.items() if not name.startswith("vision_tower.")]
        groups = [{"params": vision}, {"params": others}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def keep_layer(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self.layer_TD = (output if isinstance(output, Tensor) else output[0])[0]

    def losses(self, record: Record) -> tuple[Tensor, Tensor, Tensor]:
        """Text, grounding and 3D loss of one sample, alone in its sequence."""
        store = SceneStore.open(self.folder / f"results/scenes/{record.scene}.zarr")
        if record.object_ids is not None:
            record = replace(record, object_ids=[PROPOSALS[0]])
        sample = build_sample(record, PROPOSALS, self.tokenizer, label_chat_tokens=False)
        pack = Pack(scene=read_scene(store, "pred"), samples=(sample,))
        found = self.student(pack, SupervisionSettings())
        before = len(sample.prefix.before_ids)
        visual_RCD = self.layer_TD[before : before + 14 * 15].view(14, 15, 96)[:, :14]
        predicted_RCT = self.student.proj_3d(visual_RCD)
        features = FeatureStore.open(self.folder / SHARD).features(record.scene)
        teacher_RCT = torch.from_numpy(features)[0].float()
        distances, cosines = [], []
        for p, t in zip(predicted_RCT.flatten(0, 1), teacher_RCT.flatten(0, 1), strict=True):
            p, t = p / p.norm(), t / t.norm()
            distances.append(((p - t) ** 2).sum())
            cosines.append(1 - p @ t)
        supervision = torch.stack(distances).mean() + torch.stack(cosines).mean()
        return found.text_K[0], found.grounding_K[0], supervision

    def step(self, batch: list[Record], factor: float) -> dict[str, float | None]:
        """Train on the samples of a batch; return the step's losses and gradient norm."""
        self.optimizer.zero_grad()
        losses, texts, groundings, supervisions = [], [], [], []
        for record in batch:
            text, grounding, supervision = self.losses(record)
            loss = text + grounding + 0.5 * supervision
            (loss / len(batch)).backward()
            losses.append(loss)
            supervisions.append(supervision)
            if record.answer == "<ground>":
                groundings.append(grounding)
            else:
                texts.append(text)
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        vision, others = self.optimizer.param_groups
        vision["lr"], others["lr"] = factor * RATE_VISION_TOWER, factor * RATE
        self.optimizer.step()
        return {
            "loss": mean(losses),
            "text": mean(texts),
            "grounding": mean(groundings),
            "supervision": mean(supervisions),
            "lr": factor * RATE,
            "grad_norm": float(norm),
        }


def mean(values: list[Tensor]) -> float | None:
    return sum(value.item() for value in values) / len(values) if values else None


@pytest.mark.slow
def test_every_setting_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(
        tmp_path,
        samples=SAMPLES,
        seed=SEED,
        epochs=EPOCHS,
        label_chat_tokens=False,
        global_batch=BATCH,
        pack=2,
        learning_rate=RATE,
        learning_rate_vision_tower=RATE_VISION_TOWER,
        warmup_fraction=0.1,  # of 6 steps: 0.6, which counts as 1
        weight_decay=0.0,
        gradient_clip=1.0,
    )
    config = json.loads(path.read_text())
    config["supervision"] = {"weight": 0.5, "loss": "both", "layer": 1}
    config["boxes"]["train"] = "pred"
    config["geometry"]["coordinate_dtype"] = "bfloat16"
    write_json(path, config)
    run(tmp_path, monkeypatch)
    rows = read_rows(growing_log(tmp_path / OUT))

    plain, mix = PlainRun(tmp_path), records(SAMPLES)
    step = seen = 0
    for epoch in range(EPOCHS):
        batches = plan_batches(
            [record.scene for record in mix],
            pack=2,
            global_batch=BATCH,
            drop_last=False,
            seed=SEED,
            epoch=epoch,
        )
        for batch in batches:
            numbers = [number for plan in batch for number in plan.indices]
            factor = 0.0 if step == 0 else (1 + math.cos(math.pi * (step - 1) / (STEPS - 1))) / 2
            expected = plain.step([mix[number] for number in numbers], factor)
            row, step, seen = rows[step], step + 1, seen + len(numbers)
            assert (row["step"], row["samples"]) == (step, seen)
            for name, value in expected.items():
                wanted = None if value is None else pytest.approx(value, rel=1e-4)
                assert row[name] == wanted, (step, name)
    assert step == len(rows) == STEPS
