"""Builds the report page from the files that the other stages left.

It computes no score: every number comes from the summary, the metrics' per-question values or a
training log, and stands beside its provenance. The page has no outside resources. Its one script is
allowed by its hash, and may load the rooms' files that lie beside the page. All but the questions
can be read without it.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs import __version__
from threedrs.evaluation.alike_answers import settings_that_answer_alike
from threedrs.evaluation.controls import sentences_of_looking
from threedrs.evaluation.trivial_answers import sentences_below
from threedrs.io.files import write_text
from threedrs.report import charts
from threedrs.report.costs import run_costs, stage_costs
from threedrs.report.curves import packed_curves, quarters, training_curves
from threedrs.report.details import detail_tables
from threedrs.report.next_runs import next_runs
from threedrs.report.published import GROUPS, PUBLISHED, SOURCE, setting_of
from threedrs.report.question_columns import Questions
from threedrs.report.results import Results
from threedrs.report.room_files import write_rooms
from threedrs.report.scores import origin_of, run_colours, score_rows
from threedrs.report.verdict import config_differences, statement, verdicts
from threedrs.scenes.store import SceneStore
from threedrs.teachers.feature_store import FeatureStore
from threedrs.visualization.box_overlay import TRUE_COLOUR
from threedrs.visualization.feature_plot import plot_features
from threedrs.visualization.templates import data_uri, page_environment, page_script
from threedrs.workflow.processes import run_text

# Joined to one script, in this order.
SCRIPTS = [f"{name}.js" for name in ("room", "tables", "curves", "page", "questions")]


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What the page shows."""

    title: str
    baseline: str  # the run the others are compared with
    runs: tuple[str, ...]  # in the order of tables
    benchmarks: tuple[str, ...]  # in the order of tables
    # Those of the configured runs, not what an earlier configuration has left; mixes likewise.
    teachers: tuple[str, ...]
    mixes: tuple[str, ...]
    demo: bool  # whether the data is generated
    feature_shard: str | None  # shard whose features are shown; None without training


def build_report(folder: Path, settings: ReportSettings) -> None:
    """Write ``index.html`` and ``rooms`` to ``report`` in the results folder.

    Raises:
        DataError: a file of an earlier stage is missing or malformed.
        StoreError: a scene or feature store is damaged.
    """
    results = Results(
        folder=folder, runs=settings.runs, benchmarks=settings.benchmarks, mix_names=settings.mixes
    )
    script, script_hash = page_script("threedrs.report", SCRIPTS)
    questions = Questions(results, settings.baseline)
    settings_rows, trivial_rows = score_rows(results)
    curves = training_curves(results)
    page = (
        page_environment("threedrs.report")
        .get_template("index.html.j2")
        .render(
            settings=settings,
            version=__version__,
            commit=code_commit(),
            script=script,
            script_hash=script_hash,
            summary=results.summary,
            columns=results.columns,
            results=results,
            **_comparison(results),
            score_rows=settings_rows,
            trivial_rows=trivial_rows,
            origin_of=origin_of,
            counts=questions.counts(),
            questions=questions.packed(),
            true_colour=TRUE_COLOUR,
            **_published(results),
            radars=charts.radars(results),
            details=detail_tables(results),
            awareness=results.awareness(),
            quartiles=charts.awareness_quartiles(results),
            curves=curves,
            quarters=quarters,
            curves_data=packed_curves(curves, results.runs),
            run_colours=run_colours(results.runs),
            mixes=charts.mixes(results),
            teachers=_teachers(folder, settings.teachers, settings.feature_shard),
            stages=stage_costs(folder / "benchmarks"),
            run_costs=run_costs(results),
        )
    )
    # The page comes last, so that one that is there has its rooms beside it.
    write_rooms(folder / "scenes", questions.boxes(), folder / "report" / "rooms")
    write_text(folder / "report" / "index.html", page)


def _comparison(results: Results) -> dict[str, Any]:
    """Return what the page says of the settings' differences, and of what they rest on."""
    summary, columns = results.summary, results.columns
    judged, baseline = verdicts(summary, columns), summary["groups"][0]["name"]
    return {
        "statement": statement(judged, baseline, summary["comparison"]),
        "alike": settings_that_answer_alike(summary),
        "looking": [*sentences_below(summary, columns), *sentences_of_looking(summary, columns)],
        "verdicts": judged,
        "next_runs": next_runs(summary, judged),
        "verdict_reaches": [charts.reaches_of(verdict) for verdict in judged],
        "room_strips": [charts.room_strips(results, verdict) for verdict in judged],
        "config_differences": _config_differences(results),
    }


def _published(results: Results) -> dict[str, Any]:
    """Return what the page says of published scores.

    ``published`` has groups of rows: method, runs of its setting, headline values. ``alone`` has
    the setting of each run that no row is of.
    """
    runs_of = {
        row.method: [run for run in results.runs if row.is_of(results.config(run))]
        for row in PUBLISHED
    }
    repeated = {run for runs in runs_of.values() for run in runs}
    return {
        "published": {
            title: [
                (row.method, runs_of[row.method], row.of(results.columns))
                for row in rows
                if any(value is not None for value in row.of(results.columns))
            ]
            for title, rows in GROUPS.items()
        },
        "alone": {
            run: setting_of(results.config(run)) for run in results.runs if run not in repeated
        },
        "source": SOURCE,
    }


def _config_differences(results: Results) -> dict[str, list[tuple[str, Any, Any]]]:
    """Return trained setting -> the keys in which it differs from a trained baseline's."""
    base, *others = results.summary["groups"]
    (mine, *_), found = base["runs"], {}
    for group in others:
        run = group["runs"][0]
        if results.train(run) and results.train(mine):
            changes = config_differences(results.config(run), results.config(mine))
            # Seeds differ within a setting too, and make none.
            found[group["name"]] = [change for change in changes if change[0] != "train.seed"]
    return found


def code_commit() -> str | None:
    """Return the commit of the code that runs, marked where files differ from it, if git knows."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        # On a slow file system git looks at every file for minutes.
        return run_text("git", *arguments, seconds=600.0, folder=here.parent).stdout.strip()

    # An installed package may lie in somebody else's repository, which does not track its files.
    try:
        if shutil.which("git") is None or not git("ls-files", here.name):
            return None
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=, with changes")
    except subprocess.TimeoutExpired:
        return None


def _teachers(folder: Path, teachers: Sequence[str], shard: str | None) -> list[dict[str, Any]]:
    """Return an image of each teacher's features of one scene, if it has any, as a data URI."""
    images = []
    for teacher in teachers:
        features = FeatureStore.open(folder / "features" / teacher / f"{shard}.zarr")
        if not features.scenes:  # the scans of the whole shard cannot be used
            continue
        scene = features.scenes[0]
        image = plot_features(features, SceneStore.open(folder / "scenes" / f"{scene}.zarr"))
        images.append(
            {
                "teacher": teacher,
                "alt": f"Frames of {scene} above the features of {teacher} in false colour",
                "uri": data_uri(image, "JPEG", quality=76),
                "width": image.width,
                "height": image.height,
            }
        )
    return images
