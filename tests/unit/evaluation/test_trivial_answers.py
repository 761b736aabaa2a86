"""What anyone scores without looking: by hand, against slow loops, and in the summary."""

import csv

import numpy as np
import pytest

from fixtures.report_files import RUNS, SPLITS, summarise, write_results
from threedrs.errors import DataError
from threedrs.evaluation.trivial_answers import (
    CANDIDATES,
    TrainingAnswers,
    first_words,
    sentences_below,
    trivial_scores,
    write_trivial_answers,
)
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, conversation, write_records
from threedrs.tasks.registry import TASKS, headline_columns

SCENE = "scene0000_00"


def grounded(benchmark, boxes, true):
    """A question about unit boxes at these positions along x."""
    at = [[float(x), 0, 0, 1, 1, 1] for x in boxes]
    return Prediction(
        id=f"{boxes}{true}",
        benchmark=benchmark,
        scene=SCENE,
        scores=np.zeros(len(boxes) + 1),
        boxes=np.array(at).reshape(-1, 6),
        gt=np.array([[float(x), 0, 0, 1, 1, 1] for x in true]).reshape(-1, 6),
    )


def asked(benchmark, human, answer, *, box=None, number=0, references=None):
    return Record(
        id=f"q{number}",
        benchmark=benchmark,
        scene=SCENE,
        conversations=conversation(human, answer),
        box_input=box,
        references=references,
    )


def scores_of(benchmark, rows):
    records = [asked(benchmark, "<image> Which?", "<ground>") for _ in rows]
    return trivial_scores(TASKS[benchmark], rows, records, [])


def test_chance_of_scanrefer_by_hand():
    # One of 3, one of 2, and none without a proposal.
    rows = [grounded("scanrefer", boxes, [0]) for boxes in ((0, 5, 9), (7, 0), ())]
    scores = scores_of("scanrefer", rows)
    assert list(scores) == ["chance"]
    assert scores["chance"]["acc@0.5"] == pytest.approx(100 * (1 / 3 + 1 / 2 + 0) / 3)


def test_chance_of_multi3drefer_by_hand():
    rows = [
        grounded("multi3drefer", (0, 5, 9), [0, 5]),  # F1 2/3 by two of four candidates
        grounded("multi3drefer", (0, 5, 9), []),  # right by "no object" alone, one of four
    ]
    scores = scores_of("multi3drefer", rows)
    assert scores["chance"]["f1@0.25"] == pytest.approx(100 * (1 / 3 + 1 / 4) / 2)
    assert scores["one answer"]["f1@0.25"] == 50  # always no object


def test_chance_is_the_mean_of_random_scores():
    draw = np.random.default_rng(0)
    rows = [grounded("scanrefer", draw.uniform(-3, 3, 9), [0]) for _ in range(30)]
    expected = scores_of("scanrefer", rows)["chance"]["acc@0.25"]
    found = []
    for _ in range(300):
        for row in rows:
            row.scores[:] = draw.uniform(-1, 1, 10)
        metric = TASKS["scanrefer"].measure(rows, False)["acc@0.25"]
        found.append(metric.value())
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 300**0.5)


TRAINED = [
    asked("scanqa", f"<image> {question} Answer the question simply.", answer)
    for question, answer in (
        ("What color is the bed?", "red"),
        ("What color is the desk?", "red"),
        ("What color is the chair by the door?", "blue"),
        ("How many beds are in this room?", "two"),
        ("How many chairs are in this room?", "two"),
        ("How many chairs are there?", "two"),
    )
]


def test_the_question_within_a_prompt():
    situated = TASKS["sqa3d"].prompt.format(
        situation="I sit. The bed is behind me.", question="Is there a lamp on my left?"
    )
    assert first_words(TASKS["sqa3d"], situated, 4) == "is there a lamp"
    plain = TASKS["scanqa"].prompt.format(question="Tell the color of the bed.")
    assert first_words(TASKS["scanqa"], plain, 3) == "tell the color"
    # Every description is asked for in the same words.
    caption = TASKS["scan2cap"].prompt
    assert first_words(TASKS["scan2cap"], caption, 4) == ""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What color is the lamp?", "red"),
        ("How many lamps are here?", "two"),
        ("Where is it?", "two"),  # no opening word in common
    ],
)
def test_answers_from_first_words(question, answer):
    human = TASKS["scanqa"].prompt.format(question=question)
    answers = TrainingAnswers(TASKS["scanqa"], TRAINED)
    assert answers.by_first_words(asked("scanqa", human, "-")) == answer


def test_texts_are_scored_by_the_benchmarks_own_metric():
    human = "<image> What color is the lamp? Answer the question simply."
    rows, records = [], []
    for number, truth in enumerate(("red", "two", "green", "two")):
        records.append(asked("scanqa", human, truth, number=number, references=[truth]))
        rows.append(
            Prediction(id=f"q{number}", benchmark="scanqa", scene=SCENE, references=(truth,))
        )
    scores = trivial_scores(TASKS["scanqa"], rows, records, TRAINED)
    assert {way: values["em"] for way, values in scores.items()} == {
        "one answer": 50,
        "first words": 25,
    }
    assert "meteor" not in scores["one answer"]
    assert trivial_scores(TASKS["scanqa"], rows, records, []) == {}
    assert trivial_scores(TASKS["scanqa"], [], [], TRAINED) == {}


def test_the_one_description_is_the_best_of_the_common_ones_on_the_training_questions():
    task, draw = TASKS["scan2cap"], np.random.default_rng(1)
    words = np.array(["this", "is", "a", "brown", "chair", "table", "near", "the", "door"])
    captions = [" ".join(draw.choice(words, 6)) for _ in range(40)]
    training = [
        asked("scan2cap", task.prompt, text, box=[number // 2, 0, 0, 1, 1, 1], number=number)
        for number, text in enumerate(captions)
    ]
    found = TrainingAnswers(task, training).best_for_all()

    def cider(text):
        rows = [
            Prediction(id=f"{i}", benchmark="scan2cap", scene=SCENE, prediction=text,
                       references=tuple(captions[2 * i : 2 * i + 2]))
            for i in range(20)
        ]  # fmt: skip
        return task.measure(rows, False)["cider"].value()

    common = {text: np.mean([sum(w in c.split() for c in captions) for w in text.split()])
              for text in captions}  # fmt: skip
    tried = sorted(captions, key=lambda text: (-common[text], text))[:CANDIDATES]
    assert found == max(tried, key=cider)


def test_an_object_without_a_detector_box_gets_no_description():
    task = TASKS["scan2cap"]
    training = [asked("scan2cap", task.prompt, "a brown chair", box=[0, 0, 0, 1, 1, 1])]
    records = [
        asked("scan2cap", task.prompt, "-", box=box, number=number)
        for number, box in enumerate(([0, 0, 0, 1, 1, 1], None))
    ]
    rows = [
        Prediction(id=f"q{i}", benchmark="scan2cap", scene=SCENE, prediction="",
                   references=("a brown chair", "a table"))
        for i in range(2)
    ]  # fmt: skip
    rouge = trivial_scores(task, rows, records, training)["one answer"]["rouge_l"]
    empty = task.measure(rows[1:], False)["rouge_l"].value()
    assert rouge == pytest.approx((100 + empty) / 2)


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path)


def written(results, records=None):
    training = results / "instructions" / "sqa3d_train.jsonl"
    write_records(training, [asked("sqa3d", "<image> Which chair?", "brown")])
    write_trivial_answers(
        {name: [results / "eval" / run / name / "predictions.jsonl" for run in RUNS]
         for name in SPLITS},
        records=records or {name: results / "instructions" / f"{name}_{split}.jsonl"
                            for name, split in SPLITS.items()},
        training={"sqa3d": training},
        out=results / "trivial_answers.json",
    )  # fmt: skip
    return results / "trivial_answers.json"


def test_the_rows_stand_in_all_tables(results):
    summary = summarise(results, written(results))
    rows = {row["name"]: row["metrics"] for row in summary["trivial"]}
    assert rows["chance"] == {"scanrefer": {"acc@0.25": {"mean": 50}, "acc@0.5": {"mean": 50}}}
    assert set(rows["one answer"]) == {"sqa3d"}  # no training captions are there to learn from
    with (results / "report" / "summary.csv").open(newline="") as stream:
        table = {row["run"]: row for row in csv.DictReader(stream)}
    assert table["(chance)"]["scanrefer:acc@0.5"] == "50.0000"
    assert table["(chance)"]["scanrefer:acc@0.5:low"] == table["(chance)"]["sqa3d:em"] == ""
    assert table["(chance)"]["notes"].startswith("One of the candidate boxes")
    markdown = (results / "report" / "summary.md").read_text()
    assert "| *chance* | 50.0 | 50.0 |" in markdown
    assert "\n\nfirst words: The most frequent training answer" in markdown
    latex = (results / "report" / "summary.tex").read_text()
    below = latex.partition("\\midrule")[2].partition("\\midrule")[2]
    assert "\\textit{chance} & 50.0 & 50.0 & --" in below
    assert "\n\nfirst words: The most frequent training answer" in below
    assert "textbf" not in latex  # one training a side shows no difference


def test_settings_below_an_answer_without_looking_are_named(results):
    summary = summarise(results, written(results))
    assert sentences_below(summary, headline_columns(SPLITS)) == [
        "baseline scores below what anyone gets without looking on 3 of 3 metrics: ScanRefer "
        "Acc@0.25 (chance), ScanRefer Acc@0.5 (chance), SQA3D EM (one answer)."
    ]
    assert "baseline scores below" in (results / "report" / "summary.md").read_text()
    # What the models themselves say without images is not what anyone says.
    low = {"scanrefer": {"acc@0.25": {"mean": 100.0}}}
    summary["trivial"] = [{"name": "baseline, no images", "how": "", "metrics": low}]
    assert sentences_below(summary, headline_columns(SPLITS)) == []


def test_a_score_whose_interval_reaches_an_answer_without_looking_is_not_below(results):
    summary = summarise(results, written(results))
    scores = summary["runs"]["baseline"]["benchmarks"]["sqa3d"]["metrics"]["em"]
    scores["high"] = 100.0
    (sentence,) = sentences_below(summary, headline_columns(SPLITS))
    assert "on 2 of 3 metrics" in sentence
    assert "SQA3D" not in sentence


def test_a_score_without_an_interval_is_held_against_an_answer_without_looking(results):
    summary = summarise(results, written(results))
    metrics = summary["runs"]["baseline"]["benchmarks"]["sqa3d"]["metrics"]
    metrics["em"]["high"] = None  # all questions are about one room
    (sentence,) = sentences_below(summary, headline_columns(SPLITS))
    assert "on 3 of 3 metrics" in sentence


def test_a_question_that_is_not_among_the_records_is_named(results):
    other = dict.fromkeys(SPLITS, results / "instructions" / "sqa3d_test.jsonl")
    with pytest.raises(DataError, match="has no question 'scanrefer_scene0000_00_0'"):
        written(results, other)
