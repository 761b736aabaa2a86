"""Which edits of the code rerun what: exactly the stale jobs, named by rule and wildcards.

docs/RELIABILITY.md shows the same as a table. Edits are taken back, so each test starts from the
finished state.
"""

import os

import pytest

from fixtures.changed_checkout import edited, package, rewritten
from fixtures.changed_checkout import trial as trial  # a fixture
from fixtures.checkout import Checkout
from fixtures.stale_jobs import (
    BOXES,
    CONVERSIONS,
    FROM_SCENES,
    FROM_TRAINING,
    MIX,
    REPORTS,
    features,
    predicted,
    scored,
    trained,
)


def test_touched_files_and_edited_helpers_rerun_nothing(trial: Checkout) -> None:
    """A new date on every result, input, module and script; edits that concern no result here.

    Those are in shared helpers, other teachers, the command line and Snakemake's own report.
    """
    parts = ("results", "src", "config", "workflow")
    entries = [entry for part in parts for entry in (trial.folder / part).rglob("*")]
    dates = {entry: entry.stat() for entry in entries}
    for entry in entries:
        os.utime(entry)
    names = ("__init__", "errors", "io/files", "distributed/gpus", "workflow/job_log")
    names += ("distributed/launch", "scannet/layout", "workflow/locks")
    names += ("teachers/hub_encoders", "cli/plan", "planning/training")
    helpers = [f"{name}.py" for name in names] + ["../../workflow/report/summary.rst"]
    try:
        with edited(*package(trial, *helpers)):
            assert trial.planned() == set()
    finally:
        for entry, status in dates.items():
            os.utime(entry, ns=(status.st_atime_ns, status.st_mtime_ns))


CODE = {
    "boxes": (["scannet/mesh.py"], BOXES | CONVERSIONS | FROM_SCENES),
    "scenes": (["scenes/build.py"], FROM_SCENES),
    "features of one teacher": (["teachers/vggt/extractor.py"], features() | trained("3drs")),
    "balance": (["instructions/balance.py"], MIX | FROM_TRAINING),
    "train": (["training/loop.py"], FROM_TRAINING),
    "predict": (["evaluation/answerer.py"], predicted()),
    "scene report, tables": (
        ["scenes/templates/report.html.j2", "evaluation/tables.py"],
        {"scene_report"} | REPORTS,
    ),
    "a metric that two benchmarks use": (
        ["metrics/exact_match.py"],
        scored(benchmarks=["scanqa", "sqa3d"]),
    ),
    "report and its page": (
        ["report/charts.py", "report/templates/scores.html.j2"],
        {"build_report"},
    ),
}


@pytest.mark.parametrize("stage", CODE)
def test_edited_code_reruns_its_stage_and_what_follows(trial: Checkout, stage: str) -> None:
    names, expected = CODE[stage]
    with edited(*package(trial, *names)):
        assert trial.planned() == expected


def test_words_and_places_rerun_nothing(trial: Checkout) -> None:
    """Another docstring, a comment, a module moved to another package, a helper's file renamed."""
    models, scenes_ = package(trial, "models", "scenes")
    words = {
        "normalised.\n": "normalised, by token.\n",
        "    distance = (predicted": "    # squared\n    distance = (predicted",
        "threedrs.models.visual_tokens": "threedrs.scenes.lattice",
        "threedrs.models.backbones.qwen2_modules": "threedrs.models.backbones.joined_kernels",
    }
    moves = {
        models / "visual_tokens.py": scenes_ / "lattice.py",
        models / "backbones" / "qwen2_modules.py": models / "backbones" / "joined_kernels.py",
    }
    with rewritten(trial, words):
        for old, new in moves.items():
            old.rename(new)
        try:
            assert trial.planned() == set()
        finally:
            for old, new in moves.items():
                new.rename(old)


def test_a_benchmarks_conversion_and_its_metric_are_stale_apart(trial: Checkout) -> None:
    with rewritten(trial, {'OTHER_TYPE = "others"': 'OTHER_TYPE = "other"'}):
        converted = {f"convert_instructions sqa3d {split}" for split in ("train", "test")}
        assert trial.planned() == converted | MIX | FROM_TRAINING
    with rewritten(trial, {"PROBABILITY = 0.4": "PROBABILITY = 0.5"}):
        assert trial.planned() == scored(benchmarks=["multi3drefer"])


def test_a_constant_in_the_loss_makes_training_stale_and_what_follows(trial: Checkout) -> None:
    with rewritten(trial, {"cosine = (1 - ": "cosine = (2 - "}):
        assert trial.planned() == FROM_TRAINING


def test_an_edited_script_reruns_its_stage_and_what_follows(trial: Checkout) -> None:
    with edited(trial.folder / "workflow" / "scripts" / "aggregate.py"):
        assert trial.planned() == REPORTS
