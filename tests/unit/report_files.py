"""A small results folder for tests of summary and report: two runs, three benchmarks, six scenes.

Every scene is one frame seen from the origin along z. Of the run 3drs two thirds of the answers are
right, of the baseline one third.
"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from threedrs.evaluation.aggregate import aggregate
from threedrs.evaluation.predictions import Prediction, write_predictions
from threedrs.evaluation.score import score_file
from threedrs.instructions.mix import describe
from threedrs.instructions.record import Record, conversation, write_records
from threedrs.io.files import write_json, write_json_lines
from threedrs.report.build import ReportSettings
from threedrs.scannet.boxes import make_box_set
from threedrs.scenes.writer import SceneContents, write_scene_store
from threedrs.teachers import store as feature_store

SCENES = tuple(f"scene{number:04d}_00" for number in range(6))
RUNS = ("3drs", "baseline")
SPLITS = {"scanrefer": "val", "scan2cap": "val", "sqa3d": "test"}
QUESTIONS_A_SCENE = 3
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
INTRINSIC = np.array([[500.0, 0, 320, 0], [0, 500, 240, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
TRUE = np.array([0.2, 0.1, 2.0, 0.6, 0.6, 0.6])
OTHER = np.array([-0.7, -0.4, 2.0, 0.4, 0.4, 0.4])
SETTINGS = ReportSettings(
    title="A test",
    baseline="baseline",
    examples=6,
    runs=RUNS,
    benchmarks=tuple(SPLITS),
    teachers=("vggt-tiny",),
    mixes=("full",),
    demo=True,
    feature_shard="train-000",
)


def scene_contents(scene: str) -> SceneContents:
    """One frame: a grey wall 3 m ahead, two objects in front of it."""
    picture = io.BytesIO()
    Image.new("RGB", (640, 480), "#909090").save(picture, format="JPEG")
    boxes = make_box_set([(TRUE, 0, "chair"), (OTHER, 1, "table")])
    masks = np.ones((2, 1, 27, 27), bool), np.ones((2, 1, 14, 14), bool)
    return SceneContents(
        rgb=np.full((1, 384, 384, 3), 144, np.uint8),
        jpegs=[picture.getvalue()],
        depth=np.full((1, 384, 384), 3000, np.uint16),
        poses=np.eye(4)[None],
        depth_intrinsic=INTRINSIC,
        depth_size=(640, 480),
        patch_xyz=np.zeros((1, 14, 14, 3), np.float32),
        boxes={"gt": boxes, "pred": boxes},
        masks={"gt": masks, "pred": masks},
        attributes={
            "scene": scene,
            "split": "val",
            "frame_ids": [7],
            "invalid_depth": "reference",
        },
    )


def _question(benchmark: str, scene: str, number: int) -> Record:
    hostile = f" {HOSTILE}" if number == 0 else ""
    grounding = benchmark == "scanrefer"
    return Record(
        id=f"{benchmark}_{scene}_{number}",
        benchmark=benchmark,
        scene=scene,
        conversations=conversation(f"<image> Which chair?{hostile}", "brown"),
        question_type="unique" if grounding else None,
        object_ids=[0] if grounding else None,
        box_input=TRUE.tolist() if benchmark == "scan2cap" else None,
        references=None if grounding else ["the brown chair", f"brown{hostile}"],
    )


def _prediction(record: Record, right: bool) -> Prediction:
    shared = {"id": record.id, "benchmark": record.benchmark, "scene": record.scene}
    if record.references is None:
        scores = np.array([0.9, 0.1, 0.0] if right else [0.1, 0.9, 0.0])
        boxes, gt = np.stack([TRUE, OTHER]), TRUE[None]
        return Prediction(
            **shared, question_type=record.question_type, scores=scores, boxes=boxes, gt=gt
        )
    text = "the brown chair" if right else f"red {HOSTILE}"
    return Prediction(**shared, prediction=text, references=tuple(record.references))


def write_results(folder: Path) -> Path:
    """Write the results folder, from scenes to metrics, and return it."""
    results = folder / "results"
    for scene in SCENES:
        write_scene_store(results / "scenes" / f"{scene}.zarr", scene_contents(scene))
    for benchmark, split in SPLITS.items():
        records = [
            _question(benchmark, scene, number)
            for scene in SCENES
            for number in range(QUESTIONS_A_SCENE)
        ]
        write_records(results / "instructions" / f"{benchmark}_{split}.jsonl", records)
        for run, right in (("3drs", 2), ("baseline", 1)):
            place = results / "eval" / run / benchmark
            write_predictions(
                place / "predictions.jsonl",
                [_prediction(r, index % 3 < right) for index, r in enumerate(records)],
            )
            score_file(
                benchmark,
                place / "predictions.jsonl",
                place / "metrics.json",
                bootstrap=100,
                meteor=False,
                run=run,
                per_question=place / "per_question.npz",
            )
    for run in RUNS:
        _write_training(results / "train" / run, run)
    _write_data(results)
    return results


def _write_training(folder: Path, run: str) -> None:
    teacher = "vggt-tiny" if run == "3drs" else "none"
    config = {"run": run, "teacher": {"name": teacher}, "train": {"seed": 1}, "paths": {"out": run}}
    write_json(folder / "config.json", {**config, "model": {"name": "llava-video"}})
    summary = {"device": "CPU", "ranks": 1, "steps": 2, "samples": 8, "seconds": 2.0}
    summary |= {"rank_seconds": 2.0}
    speeds = {"samples_per_second": 4.0, "tokens_per_second": 100.0}
    unknown = {"model_flops_utilisation": None, "peak_memory_gib": 0.5}
    write_json(folder / "train.json", {**summary, **speeds, **unknown})
    losses = {"text": 2.0, "grounding": None, "supervision": 1.0 if run == "3drs" else 0.0}
    rows: list[dict] = [{"step": step, **losses, "samples_per_second": 4.0} for step in (1, 2)]
    rows[1]["eval"] = {"sqa3d": {"em": 20.0}}
    write_json_lines(folder / "log.jsonl", rows)


def _write_data(results: Path) -> None:
    mix = results / "instructions" / "mixes"
    answers = [("yes", 0), ("yes", 1), ("costs $5 $", 2), ("costs $5 $", 3)]
    records = [
        Record(
            id=f"t{number}",
            benchmark="sqa3d",
            scene="scene0099_00",
            conversations=conversation("<image> Is it?", answer),
        )
        for answer, number in answers
    ]
    summary = {
        "balance": "weights",
        "repeats": 1,
        **describe(records),
        "before": describe(records[1:]),
    }
    write_json(mix / "full.summary.json", summary)
    times = results / "benchmarks" / "train"
    times.mkdir(parents=True)
    (times / "3drs.tsv").write_text("s\tmax_rss\tcpu_time\n12.5\t300.0\t11.0\n")
    (times / "baseline.tsv").write_text("s\tmax_rss\tcpu_time\n7.5\t-\tNA\n")
    _write_features(results / "features" / "vggt-tiny" / "train-000.zarr", SCENES[0])


def _write_features(shard: Path, scene: str) -> None:
    features = np.random.default_rng(0).normal(size=(1, 14, 14, 8)).astype(np.float16)
    origin = feature_store.SceneOrigin(
        scene=scene,
        frame_ids=(7,),
        input_sha256="",
        teacher="vggt-tiny",
        weights_sha256="",
        settings_sha256="",
    )
    feature_store.write_scene(shard, origin, features, input_size=(168, 224), seconds=1.0)
    entry = feature_store.manifest_entry(feature_store.open_scene(shard, scene))
    manifest = {"format_version": 1, "channels": 8, "scenes": {scene: entry}}
    (shard / feature_store.MANIFEST).write_text(json.dumps(manifest))


def summarise(results: Path, *, resamples: int = 200) -> dict:
    """Write the summaries and return the JSON one's content."""
    places = {(run, name): results / "eval" / run / name for run in RUNS for name in SPLITS}
    return aggregate(
        {key: place / "metrics.json" for key, place in places.items()},
        per_question_files={key: place / "per_question.npz" for key, place in places.items()},
        baseline="baseline",
        resamples=resamples,
        train_summaries={run: results / "train" / run / "train.json" for run in RUNS},
        run_configs={run: results / "train" / run / "config.json" for run in RUNS},
        out_csv=results / "report" / "summary.csv",
        out_json=results / "report" / "summary.json",
        out_latex=results / "report" / "summary.tex",
        out_markdown=results / "report" / "summary.md",
    )
