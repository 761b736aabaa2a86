"""Inference: rows in question order, resumed after a kill, the same for any number of ranks."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from threedrs import predict as entry
from threedrs.errors import ConfigError, DataError, StoreError
from threedrs.evaluation.partial import partial_files, partial_path, read_partial
from threedrs.evaluation.predict import predict_benchmark
from threedrs.evaluation.predictions import read_meta, read_predictions
from threedrs.evaluation.registry import BENCHMARKS
from threedrs.evaluation.score import score_file
from threedrs.evaluation.settings import PredictSettings
from threedrs.evaluation.tables import notes
from threedrs.files import sha256_of_file
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


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for scene in SCENES:
        write_store(folder, scene)
    return folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("1")
    return folder


@pytest.fixture
def records(tmp_path):
    """Nine questions, the scenes interleaved."""
    path = tmp_path / "scanqa_val.jsonl"
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


def test_rows_stand_in_the_questions_order_and_scenes_are_opened_once(
    tmp_path, model, records, scenes, capsys
):
    out, fake = tmp_path / "out" / "predictions.jsonl", Fake()
    run(model, records, scenes, out, fake)
    rows = read_predictions(out, BENCHMARKS["scanqa"])
    assert [row.id for row in rows] == [f"q{i}" for i in range(9)]
    assert [row.prediction for row in rows] == [f"answer q{i}" for i in range(9)]
    assert rows[0].references == ("yes", "no")
    assert sorted(fake.opened) == list(SCENES)
    meta = read_meta(out)
    assert (meta["n"], meta["benchmark"]) == (9, "scanqa")
    assert meta["counts"] == {"scenes": 3, "without_model": 0}
    assert meta["predictions_sha256"] == sha256_of_file(out)
    assert meta["inputs"]["records"] == sha256_of_file(records)
    assert meta["decoding"] == {"method": "greedy", **SETTINGS.to_json()}
    assert meta["timing"]["ranks"] == 1
    assert partial_files(out) == []
    assert "9 of 9 questions" in capsys.readouterr().err


def test_questions_of_left_out_scenes_are_not_asked_but_counted(tmp_path, model, scenes, records):
    summary = {"left_out": {"scene0044_00": 5}}
    records.with_suffix(".summary.json").write_text(json.dumps(summary))
    left_out = {SCENES[1]: "it is truncated", "scene0044_00": "of another mesh"}
    fewer = tmp_path / "scenes"
    fewer.mkdir()
    for scene in (SCENES[0], SCENES[2]):  # the left-out scene has no store at all
        (fewer / f"{scene}.zarr").symlink_to(scenes / f"{scene}.zarr")
    out, fake = tmp_path / "predictions.jsonl", Fake()
    predict_benchmark(model, records, fewer, SETTINGS, out, left_out=left_out, load=fake.load)
    rows = read_predictions(out, BENCHMARKS["scanqa"])
    assert [row.id for row in rows] == ["q0", "q2", "q3", "q5", "q6", "q8"]
    assert fake.opened == [SCENES[0], SCENES[2]]
    meta = read_meta(out)
    assert (meta["n"], meta["counts"]["scenes"]) == (6, 2)
    assert meta["left_out"] == {
        "questions": 8,
        "scenes": [
            {"scene": SCENES[1], "reason": "it is truncated", "questions": 3},
            {"scene": "scene0044_00", "reason": "of another mesh", "questions": 5},
        ],
    }
    metrics = score_file(
        "scanqa", out, tmp_path / "metrics.json", run="a", bootstrap=0, meteor=False
    )
    assert (metrics["n"], metrics["left_out"]) == (6, meta["left_out"])
    assert "8 further questions are left out" in notes(metrics)[-1] + notes(metrics)[-2]
    every = dict.fromkeys(SCENES, "no pose")
    with pytest.raises(DataError, match="every question is of a scene that is left out"):
        predict_benchmark(model, records, fewer, SETTINGS, out, left_out=every, load=fake.load)


def test_grounding_rows_hold_scores_proposals_and_true_boxes(tmp_path, model, scenes):
    path, out = tmp_path / "r.jsonl", tmp_path / "predictions.jsonl"
    ids = ([9], [], [9, 4])
    write_records(
        path,
        [
            question(i, "multi3drefer", SCENES[0], object_ids=objects, question_type="mt")
            for i, objects in enumerate(ids)
        ],
    )
    run(model, path, scenes, out, Fake())
    one, none, two = read_predictions(out, BENCHMARKS["multi3drefer"])
    assert one.scores.tolist() == [0.1, 0.9, 0.2, -0.5]
    assert (one.boxes.shape, one.gt.shape, none.gt.shape, two.gt.shape) == (
        (3, 6),
        (1, 6),
        (0, 6),
        (2, 6),
    )
    assert two.gt[0].tolist() == one.gt[0].tolist()
    assert (one.prediction, one.question_type) == (None, "mt")


def test_an_object_without_a_true_box_is_an_error(tmp_path, model, scenes):
    path = tmp_path / "r.jsonl"
    write_records(path, [question(0, "scanrefer", SCENES[0], object_ids=[5])])
    with pytest.raises(DataError, match="object 5 of question 'q0' has no true box"):
        run(model, path, scenes, tmp_path / "p.jsonl", Fake())


def test_scan2cap_without_a_detector_box_is_empty_without_the_model(tmp_path, model, scenes):
    path, out, fake = tmp_path / "r.jsonl", tmp_path / "predictions.jsonl", Fake()
    box = [0.0, 0, 0, 1, 1, 1]
    write_records(
        path,
        [
            question(0, "scan2cap", SCENES[0], references=["a chair"], box_input=box),
            question(1, "scan2cap", SCENES[0], references=["a table"]),
            question(2, "scan2cap", SCENES[1], references=["a bed"]),
        ],
    )
    run(model, path, scenes, out, fake)
    rows = read_predictions(out, BENCHMARKS["scan2cap"])
    assert [row.prediction for row in rows] == ["answer q0", "", ""]
    assert (fake.asked, fake.opened) == (["q0"], [SCENES[0]])
    assert read_meta(out)["counts"]["without_model"] == 2


def kill_in_the_second_scene(model, records, scenes, out):
    with pytest.raises(KeyboardInterrupt):
        run(model, records, scenes, out, Fake(stop_at={"q4"}))
    assert not out.exists()
    assert read_meta(out) is None


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, model, records, scenes, capsys):
    whole, out, fake = tmp_path / "a" / "p.jsonl", tmp_path / "b" / "p.jsonl", Fake()
    run(model, records, scenes, whole, Fake())
    kill_in_the_second_scene(model, records, scenes, out)
    with partial_path(out, 0).open("a") as stream:
        stream.write('{"format_version": 1, "id": "q1", "predi')
    run(model, records, scenes, out, fake)
    assert fake.asked == ["q1", "q4", "q7", "q2", "q5", "q8"]
    assert "3 of 9 questions are answered already" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    assert read_meta(out)["timing"]["resumed"] == 3


def test_a_scene_of_which_lines_are_lost_is_asked_as_a_whole(tmp_path, model, records, scenes):
    """Scores depend in their last bits on the questions asked together."""
    whole, out, fake = tmp_path / "a" / "p.jsonl", tmp_path / "b" / "p.jsonl", Fake()
    run(model, records, scenes, whole, Fake())
    kill_in_the_second_scene(model, records, scenes, out)
    part = partial_path(out, 0)
    part.write_text("".join(part.read_text().splitlines(keepends=True)[:3]))  # header, two of three
    run(model, records, scenes, out, fake)
    assert len(fake.asked) == 9
    assert read_meta(out)["timing"]["resumed"] == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("cut_off", [0, 1])
def test_a_scene_asked_again_by_another_rank_has_one_ranks_answers(tmp_path, cut_off):
    """Of the rank that was cut off, no answer is left among those of the other."""
    out, header = tmp_path / "p.jsonl", json.dumps({"format_version": 1, "header": {}})
    for rank in (0, 1):
        rows = [
            {"format_version": 1, "id": f"q{i}", "benchmark": "scanqa", "scene": SCENES[0]}
            | {"prediction": f"rank {rank}", "references": ["yes"]}
            for i in range(2 if rank == cut_off else 3)
        ]
        lines = [header, *map(json.dumps, rows)]
        partial_path(out, rank).write_text("".join(f"{line}\n" for line in lines))
    rows = read_partial(out, BENCHMARKS["scanqa"])
    assert [row.prediction for row in rows.values()] == [f"rank {1 - cut_off}"] * 3


@pytest.mark.parametrize("what", ["model", "settings", "records"])
def test_answers_of_something_else_are_not_used(tmp_path, model, records, scenes, what, capsys):
    out, fake, settings = tmp_path / "p.jsonl", Fake(), SETTINGS
    kill_in_the_second_scene(model, records, scenes, out)
    if what == "model":
        (model / "weights").write_text("2")
    elif what == "settings":
        settings = PredictSettings(prompt="as_trained")
    else:
        lines = records.read_text().splitlines(keepends=True)
        records.write_text("".join(reversed(lines)))
    run(model, records, scenes, out, fake, settings)
    assert len(fake.asked) == 9
    assert f"are of another {what}; starting over" in capsys.readouterr().err
    assert len(read_predictions(out, BENCHMARKS["scanqa"])) == 9


def test_answers_of_more_ranks_are_used(tmp_path, model, records, scenes):
    out, fake = tmp_path / "p.jsonl", Fake()
    kill_in_the_second_scene(model, records, scenes, out)
    partial_path(out, 0).rename(partial_path(out, 3))
    run(model, records, scenes, out, fake)
    assert len(fake.asked) == 6
    assert partial_files(out) == []


RANK = """
import sys
from pathlib import Path
from tests.unit.test_predict import Fake, run
model, records, scenes, out = map(Path, sys.argv[1:])
run(model, records, scenes, out, Fake())
"""


@pytest.mark.parametrize(
    "names",
    [
        ("RANK", "LOCAL_RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"),
    ],
    ids=["torchrun", "srun"],
)
def test_two_ranks_write_the_same_bytes_as_one(tmp_path, model, records, scenes, names):
    one, two = tmp_path / "one" / "p.jsonl", tmp_path / "two" / "p.jsonl"
    run(model, records, scenes, one, Fake())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    root = Path(__file__).resolve().parents[2]
    program = [sys.executable, "-c", RANK, *map(str, (model, records, scenes, two))]
    ranks = [
        subprocess.Popen(
            program,
            cwd=root,
            env={
                **os.environ,
                "PYTHONPATH": f"{root / 'src'}:{root}",
                **dict(zip(names, (str(rank), str(rank), "2"), strict=True)),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert two.read_bytes() == one.read_bytes()
    assert read_meta(two)["timing"]["ranks"] == 2
    assert partial_files(two) == []


def test_a_missing_store_is_one_clear_error(tmp_path, model, scenes):
    path = tmp_path / "r.jsonl"
    write_records(path, [question(0, "scanqa", "scene0707_00", references=["x"])])
    with pytest.raises(StoreError, match=r"scene0707_00\.zarr: there is no scene store"):
        run(model, path, scenes, tmp_path / "p.jsonl", Fake())
    with pytest.raises(DataError, match="is not a folder with a trained model"):
        run(tmp_path / "none", path, scenes, tmp_path / "p.jsonl", Fake())


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "holds no questions"),
        ([question(0, "scanqa", SCENES[0])], "line 1: an evaluation question needs references"),
        ([question(0, "scanqa", SCENES[0], references=["x"])] * 2, "line 2: id 'q0' stands"),
        (
            [
                question(0, "scanqa", SCENES[0], references=["x"]),
                question(1, "sqa3d", SCENES[0], references=["x"]),
            ],
            "line 2: is of sqa3d, line 1 of scanqa",
        ),
        ([question(0, "scanrefer", SCENES[0])], "line 1: a grounding question needs object_ids"),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(tmp_path, model, scenes, questions, message):
    path = tmp_path / "r.jsonl"
    write_records(path, questions)
    with pytest.raises(DataError, match=message):
        run(model, path, scenes, tmp_path / "p.jsonl", Fake())


def test_settings_name_what_is_valid():
    assert PredictSettings.from_json(SETTINGS.to_json()) == SETTINGS
    for value, message in (
        ({"promt": "reference"}, "promt is not a key; did you mean prompt"),
        ({"prompt": "plain"}, "choose one of reference, as_trained"),
        ({"boxes": "all"}, "choose one of gt, pred"),
        ({"max_new_tokens": 0}, "give a whole number from 1 up"),
        ([], "expected a JSON object"),
    ):
        with pytest.raises(ConfigError, match=message):
            PredictSettings.from_json(value)


def test_the_entry_point_ends_in_one_line(tmp_path, model, records, scenes, monkeypatch, capsys):
    arguments = ["predict", "--model", str(tmp_path / "none"), "--records", str(records)]
    arguments += ["--scenes", str(scenes), "--out", str(tmp_path / "p.jsonl")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert entry.main() == 1
    assert "is not a folder with a trained model" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*arguments, "--settings", "{"])
    assert entry.main() == 1
    assert capsys.readouterr().err.startswith("predict: rank 0: --settings: is not JSON")


def test_two_ranks_answer_as_one(tmp_path, scenes):
    """With the real student: the same bytes, also where finished scenes are found."""
    from threedrs.models.checkpoint import load_student, save_student
    from threedrs.models.settings import ModelSettings

    student, tokenizer = load_student(ModelSettings(seed=1), teacher_channels=0)
    save_student(student, tokenizer, tmp_path / "model")
    box = [0.0, 0, 0, 1, 1, 1]
    records = tmp_path / "records.jsonl"
    questions = [
        question(
            i, "scan2cap", SCENES[i * 7 % 3], references=["x"], box_input=box if i % 4 else None
        )
        for i in range(12)
    ]
    write_records(records, questions)
    root = Path(__file__).resolve().parents[2]
    outs = {ranks: tmp_path / f"of_{ranks}" / "predictions.jsonl" for ranks in (1, 2)}

    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m")

    def predict(ranks, *launcher):
        command = [sys.executable, "-m", *launcher, "threedrs.predict"]
        command += ["--model", tmp_path / "model", "--records", records, "--scenes", scenes]
        command += ["--out", outs[ranks], "--settings", json.dumps({"max_new_tokens": 6})]
        environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    predict(1, *torchrun)
    whole = outs[1].read_bytes()
    rows = whole.decode().splitlines(keepends=True)
    assert len({json.loads(row)["prediction"] for row in rows}) > 1
    # What a killed run of one rank would have left: the answers of its first scene.
    header = json.dumps({"format_version": 1, "header": read_meta(outs[1])["inputs"]})
    kept = [row for row in rows if json.loads(row)["scene"] == SCENES[0]]
    outs[2].parent.mkdir()
    partial_path(outs[2], 0).write_text("".join([f"{header}\n", *kept]))

    said = predict(2, "threedrs.launch", "--gpus", "2")
    assert f"{len(kept)} of 12 questions are answered already" in said
    assert outs[2].read_bytes() == whole
    assert read_meta(outs[2])["timing"] == read_meta(outs[2])["timing"] | {"ranks": 2, "resumed": 4}


def test_the_tiny_student_answers_both_kinds(tmp_path, scenes, monkeypatch):
    from threedrs.models.checkpoint import load_student, save_student
    from threedrs.models.settings import ModelSettings

    student, tokenizer = load_student(ModelSettings(seed=1), teacher_channels=8)
    save_student(student, tokenizer, tmp_path / "model")
    questions = {
        "scanqa": [question(i, "scanqa", SCENES[i], references=["yes"]) for i in range(2)],
        "scanrefer": [question(i, "scanrefer", SCENES[i], object_ids=[4]) for i in range(2)],
    }
    for benchmark, rows in questions.items():
        records, out = tmp_path / f"{benchmark}.jsonl", tmp_path / benchmark / "predictions.jsonl"
        write_records(records, rows)
        arguments = ["--model", tmp_path / "model", "--records", records, "--scenes", scenes]
        arguments += ["--out", out, "--settings", json.dumps(SETTINGS.to_json())]
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        assert entry.main() == 0
        read = read_predictions(out, BENCHMARKS[benchmark])
        assert [row.id for row in read] == ["q0", "q1"]
        if benchmark == "scanrefer":
            assert all(
                row.scores.shape == (4,) and np.abs(row.scores).max() <= 1.001 for row in read
            )
        else:
            assert all(isinstance(row.prediction, str) for row in read)
