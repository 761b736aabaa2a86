"""A sixth benchmark, defined here alone, from annotation file to report; and one that lacks a part.

It asks how many chairs are in a room, is scored by the share of right counts, and by the mean of
that share over small and large counts, a metric that is not a mean over questions.
"""

import base64
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.report_files import RUNS, SCENES, SETTINGS, SPLITS, write_results
from threedrs.errors import ConfigError
from threedrs.evaluation.aggregate import aggregate
from threedrs.evaluation.predict_benchmark import predict_benchmark
from threedrs.evaluation.score import score_file
from threedrs.evaluation.trivial_answers import read_trivial_answers, write_trivial_answers
from threedrs.instructions.convert import convert
from threedrs.instructions.llava_format import load_records, write_llava
from threedrs.instructions.mix import build_mix
from threedrs.instructions.mix_settings import MixSettings
from threedrs.io.external_json import ExternalRow
from threedrs.io.files import write_json
from threedrs.metrics.bootstrap import Metric, Metrics, mean_metric
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings, PredictSettings
from threedrs.report.page import build_report
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.annotation_rows import (
    AnnotationFile,
    AnnotationTables,
    Integer,
    Rejection,
    Words,
)
from threedrs.tasks.base import Headline, Task
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, conversation, read_records
from threedrs.tasks.registry import TASKS, annotation_files, find_task

PROMPT = "<image> How many chairs are there? Answer with a number."


class Room(ExternalRow):
    scene_id: Words
    chairs: Integer


def count(source: AnnotationTables) -> Iterator[Record | Rejection]:
    def make(number: int, row: Room) -> list[Record]:
        return [
            Record(
                id=f"count_chairs_{source.split}_{number}",
                benchmark="count_chairs",
                scene=source.scenes.check_scene(row.scene_id),
                conversations=conversation(PROMPT, str(row.chairs)),
                question_type="few" if row.chairs < 3 else "many",
                references=None if source.training else [str(row.chairs)],
            )
        ]

    yield from source.each_row(Room, make)


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    right = np.array([row.prediction in row.references for row in rows], dtype=np.float64)
    few = np.array([row.question_type == "few" for row in rows])
    statistics = np.stack([right * few, few, right * ~few, ~few], axis=1)
    return {"right": mean_metric(right), "macro": Metric(statistics_QS=statistics, combine=macro)}


def macro(sums_R4: np.ndarray) -> np.ndarray:
    return 50 * (sums_R4[:, 0] / sums_R4[:, 1].clip(1) + sums_R4[:, 2] / sums_R4[:, 3].clip(1))


TASK = Task(
    name="count_chairs",
    title="Count the chairs",
    paper="https://example.org/chairs",
    protocol=1,
    dataset="countChairs",
    files=(AnnotationFile(path="chairs/{split}.json", key="rooms"),),
    splits=("train", "val"),
    evaluation_split="val",
    prompt=PROMPT,
    convert=count,
    metrics=("right", "macro"),
    measure=measure,
    combine={"macro": macro},
    headline=(
        Headline(metric="right", title="Acc", meaning="share of right counts"),
        Headline(metric="macro", title="Macro", meaning="the same, small and large counts alike"),
    ),
    published_scores={"LEO": (12.5, None)},
    judged_by="right",
)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setitem(TASKS, TASK.name, TASK)
    return TASK


@pytest.mark.slow
def test_a_sixth_benchmark_goes_from_annotations_to_the_report(task: Task, tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    train, val = annotation_files(layout, task.name)
    rooms = [{"scene_id": f"scene01{number:02d}_00", "chairs": chairs}
             for number, chairs in enumerate((0, 1, 1, 1, 2, 3))]  # fmt: skip
    write_json(train, {"rooms": [*rooms, {"scene_id": "scene0199_00", "chairs": "some"}]})
    write_json(val, {"rooms": [{"scene_id": scene, "chairs": 2 * (scene == SCENES[0]) + 1}
                               for scene in SCENES for _ in range(2)]})  # fmt: skip
    results = write_results(tmp_path)
    records = results / "instructions"
    converted = {
        split: convert(task.name, split, layout, {}, records / f"count_chairs_{split}.jsonl",
                       max_reject_fraction=0.5)
        for split in task.splits
    }  # fmt: skip
    assert (converted["train"].records, converted["train"].rejected) == (6, 1)
    assert converted["train"].reasons == {"malformed row": 1}
    write_llava(tmp_path / "array.json", read_records(records / "count_chairs_train.jsonl"))
    training = list(read_records(records / "count_chairs_train.jsonl"))
    assert list(load_records(tmp_path / "array.json")) == training

    mixed = build_mix(
        [records / "count_chairs_train.jsonl"],
        MixSettings(**{"balance": "weights", "weights": {task.name: 1}, "size": 4}),
        held_out_scenes=SCENES,
        out_jsonl=tmp_path / "mix.jsonl",
        out_summary=tmp_path / "mix.summary.json",
    )
    assert mixed["samples"] == 4

    student, tokenizer = load_student(ModelSettings(seed=3), teacher_channels=0)
    save_student(student, tokenizer, tmp_path / "model")
    for run in RUNS:
        place = results / "eval" / run / task.name
        predictions = place / "predictions.jsonl"
        predict_benchmark(
            tmp_path / "model",
            records / "count_chairs_val.jsonl",
            results / "scenes",
            PredictSettings(max_new_tokens=2),
            predictions,
        )
        scored = score_file(
            task.name,
            predictions,
            place / "metrics.json",
            bootstrap=20,
            run=run,
            per_question=place / "per_question.npz",
        )
        assert (scored["n"], list(scored["metrics"])) == (12, ["right", "macro"])
        assert set(scored["by_type"]) == {"few", "many"}
        assert scored["provenance"]["protocol"] == 1

    trivial = results / "trivial_answers.json"
    write_trivial_answers(
        {task.name: [results / "eval" / run / task.name / "predictions.jsonl" for run in RUNS]},
        records={task.name: records / "count_chairs_val.jsonl"},
        training={task.name: records / "count_chairs_train.jsonl"},
        out=trivial,
    )
    # The most frequent training answer, "1", is right in five of the six rooms.
    scores = read_trivial_answers(trivial)[task.name]
    right = {"right": 500 / 6, "macro": 50.0}
    assert scores == {"one answer": right, "first words": right}

    benchmarks = (*SPLITS, task.name)
    places = {(run, name): results / "eval" / run / name for run in RUNS for name in benchmarks}
    summary = aggregate(
        {key: place / "metrics.json" for key, place in places.items()},
        per_question_files={key: place / "per_question.npz" for key, place in places.items()},
        baseline="baseline",
        train_summaries={run: results / "train" / run / "train.json" for run in RUNS},
        run_configs={run: results / "train" / run / "config.json" for run in RUNS},
        trivial=trivial,
        out=results / "report" / "summary.json",
    )
    assert summary["benchmarks"] == list(benchmarks)
    assert summary["groups"][1]["comparison"][task.name]["macro"]["difference"] == 0
    assert [row["name"] for row in summary["trivial"]] == ["one answer", "first words"]
    assert "Count the chairs Macro" in (results / "report" / "summary.md").read_text()

    build_report(results, replace(SETTINGS, benchmarks=benchmarks))
    page = (results / "report" / "index.html").read_text()
    assert "Count the chairs" in page
    (packed,) = re.findall(r'id="questions-data">([^<]+)<', page)
    assert "How many chairs are there?" in gzip.decompress(base64.b64decode(packed)).decode()
    assert "12.5" in page  # published


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": None}, "benchmark count_chairs: lacks measure; docs/ADD_A_BENCHMARK.md"),
        ({"convert": None, "judged_by": None}, "lacks convert, judged_by"),
        ({"judged_by": "em"}, "metrics does not hold 'em'"),
        ({"evaluation_split": "test"}, "splits must hold 'train' and 'test'"),
        ({"published_scores": {"LEO": (1.0,)}}, "published_scores must give 2 values a method"),
        ({"choose": np.argsort}, "so objects must be 'one' or 'any'"),
    ],
)
def test_a_missing_part_is_named(
    monkeypatch: pytest.MonkeyPatch, change: dict, message: str
) -> None:
    monkeypatch.setitem(TASKS, TASK.name, replace(TASK, **change))
    with pytest.raises(ConfigError) as error:
        find_task(TASK.name)
    assert message in str(error.value)


def test_a_task_without_any_part_can_be_made_and_is_refused() -> None:
    assert str(Task(name="empty").fault()).startswith("lacks title, paper, protocol, dataset, ")


def test_an_incomplete_benchmark_stops_before_anything_is_scored(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(TASKS, TASK.name, replace(TASK, measure=None))
    with pytest.raises(ConfigError, match="benchmark count_chairs: lacks measure"):
        score_file(TASK.name, tmp_path / "missing.jsonl", tmp_path / "metrics.json")


@pytest.mark.parametrize("name", TASKS)
def test_the_five_benchmarks_are_whole(name: str) -> None:
    assert find_task(name) is TASKS[name]
