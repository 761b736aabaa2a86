"""The table of benchmarks, and what else has to agree with it."""

import subprocess
import sys

import pytest

from threedrs.report.published import PUBLISHED
from threedrs.tasks.base import published_scores
from threedrs.tasks.registry import TASKS, headline_columns
from threedrs.workflow.code_hash import SHAPELESS
from threedrs.workflow.code_walk import reached_code


def test_the_order_is_the_papers() -> None:
    assert list(TASKS) == ["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"]
    assert [column.title for column in headline_columns()] == [
        "Acc@0.25", "Acc@0.5", "F1@0.25", "F1@0.5", "C@0.5", "B-4@0.5", "C", "EM", "EM",
    ]  # fmt: skip
    assert [column.benchmark for column in headline_columns(["sqa3d", "scanqa"])] == [
        "scanqa",
        "scanqa",
        "sqa3d",
    ]


def test_published_scores_are_the_papers() -> None:
    rows = {row.method: row.of(headline_columns()) for row in PUBLISHED}
    assert {method for task in TASKS.values() for method in task.published_scores} == set(rows)
    paper = [62.9, 56.1, 60.4, 54.9, 86.1, 41.6, 104.8, 30.3, 60.6]
    assert rows["3DRS (LLaVA-Video)"] == paper
    assert rows["PQ3D"] == [57.0, 51.2, None, 50.1, 80.3, 36.0, None, None, 47.1]
    # Tables 4, 12 and 13, and one row of other people's notes.
    dinov2 = [59.8, 53.3, 58.5, 53.5, 80.3, 39.3, 103.5, 29.6, 60.1]
    assert rows["3DRS with DINOv2"] == dinov2
    two_layers = [61.5, 54.8, 60.1, 54.9, 84.4, 41.4, 101.4, 29.2, 60.5]
    assert rows["3DRS, last and third last layer"] == two_layers
    cosine = [62.2, 55.5, 60.4, 55.2, 85.9, 41.8, 104.5, 30.1, 60.7]
    assert rows["3DRS, cosine loss"] == cosine
    gpt4scene = [65.6, None, 67.3, None, None, 44.1, 105.7, None, 63.5]
    assert rows["GPT4Scene (Qwen2.5-VL)"] == gpt4scene
    assert rows["LEO"] == [None, None, None, None, 72.4, 38.2, 101.4, 21.5, 50.0]


def test_published_details_are_of_the_benchmarks_metrics() -> None:
    details = {name: task.published_details for name, task in TASKS.items()}
    assert details["scanrefer"]["multiple"] == {"acc@0.25": 57.0, "acc@0.5": 50.8}
    assert details["sqa3d"]["which"] == {"em": 49.9}
    assert details["scanqa"]["all"]["bleu4"] == 17.22
    for name, task in TASKS.items():
        for values in details[name].values():
            assert set(values) <= set(task.metrics)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_neither_the_conversion_nor_the_metric_depends_on_the_other(task) -> None:
    """An edited metric makes no record stale, and an edited prompt no metric."""
    reached = {
        part: {name for _, name in reached_code([task.code_entry(part)], without=SHAPELESS)}
        for part in ("convert", "measure")
    }
    assert "measure" not in reached["convert"]
    assert not {"convert", "PROMPT", "TASK"} & reached["measure"]


def test_nodes_that_prepare_data_need_no_package_of_the_metrics() -> None:
    script = (
        "import sys; sys.modules['pycocoevalcap'] = sys.modules['torch'] = None; "
        "import threedrs.instructions.convert, threedrs.config.load, threedrs.inputs.required_files"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_only_the_paths_of_annotations_shape_the_demo_data() -> None:
    reached = reached_code(["demo.write"], without=SHAPELESS)
    assert {name for module, name in reached if module.startswith("threedrs.tasks")} == {
        "PATH",
        "QUESTIONS_PATH",
        "ANSWERS_PATH",
    }


def test_a_benchmark_that_nobody_has_published_has_no_scores() -> None:
    assert published_scores("my_qa") == {}
    assert published_scores("sqa3d")["3DRS (LLaVA-Video)"] == (60.6,)
