"""Predictions to metrics: no model, no GPU, no data set.

Cost: seconds for a full-size benchmark on one core, METEOR's Java program apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threedrs import __version__
from threedrs.errors import ConfigError, DataError
from threedrs.evaluation.alike_answers import count_alike
from threedrs.evaluation.annotated_answers import AnswerCheck, take_annotated_answers
from threedrs.evaluation.compare import write_per_question
from threedrs.evaluation.external_predictions import has_scene, read_any_predictions
from threedrs.io.files import sha256_of_file, write_json
from threedrs.metrics.bootstrap import SEED, Metric, Metrics, Unavailable, estimate
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction, meta_path, read_meta
from threedrs.tasks.registry import find_task

FORMAT_VERSION = 1
BOOTSTRAP = 1000


def summarise(
    rows: Sequence[Prediction], metrics: Metrics, task: Task, bootstrap: int, not_asked: int = 0
) -> dict[str, Any]:
    """Return ``{"n", "metrics", "by_type", "alike"}`` of rows and their metrics, in percent.

    ``by_type`` holds ``{"n", "metrics"}`` of each question type, in the order of papers; rows
    without one are in none.
    """
    assert set(metrics) == set(task.metrics)

    def estimates(chosen: list[int]) -> dict[str, Any]:
        # In the task's order, which the tables follow; `measure` may return any.
        ordered = {name: metrics[name] for name in task.metrics}
        subset = {n: m.of(chosen) if isinstance(m, Metric) else m for n, m in ordered.items()}
        scenes = [rows[index].scene for index in chosen]
        return {"n": len(chosen), "metrics": estimate(subset, scenes, resamples=bootstrap)}

    # A type's metrics are made of the statistics at hand, so METEOR runs once and not for each.
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if row.question_type is not None:
            groups.setdefault(row.question_type, []).append(index)
    return {
        **estimates(list(range(len(rows)))),
        "by_type": {name: estimates(groups[name]) for name in task.ordered_types(groups)},
        "alike": count_alike(task, rows, not_asked=not_asked),
    }


def run_name(path: Path, benchmark: str) -> str:
    """Return the run a predictions file belongs to, by ``<run>/<benchmark>/predictions.jsonl``.

    A file that lies elsewhere is its own run, named after the file.
    """
    folder = path.resolve().parent
    return folder.parent.name if folder.name == benchmark else path.stem


def _scored(
    rows: Sequence[Prediction], task: Task, meta: dict[str, Any], check: AnswerCheck | None
) -> dict[str, Any]:
    """Return what the provenance says of the rows that count, and of the code that counts them."""
    scenes = [row.scene for row in rows if has_scene(row)]
    return {
        "predictions_meta": meta or None,
        "annotations": check and asdict(check),
        "short_of_answers": task.seems_short_of_answers(row.references for row in rows),
        "scenes": len(set(scenes)),
        "rows_without_scene": len(rows) - len(scenes),
        "protocol": task.protocol,
        "threedrs": __version__,
    }


def score_file(
    benchmark: str,
    predictions: Path,
    out: Path,
    *,
    bootstrap: int = BOOTSTRAP,
    meteor: bool = True,
    run: str | None = None,
    per_question: Path | None = None,
    annotations: Path | None = None,
) -> dict[str, Any]:
    """Score a predictions file, write ``metrics.json`` to ``out`` and return its content.

    The predictions are ours or of the field's own form (``external_predictions``). A meta file
    beside them must agree with their number, and what it says of questions that were not asked is
    in the result as well. The run is named by the path, unless it is given.

    Args:
        bootstrap: resamples for the 95 % intervals; 0: no intervals.
        meteor: whether to compute METEOR (needs Java; without it the rest is still given).
        per_question: where the per-question statistics go, for comparisons; None: nowhere.
        annotations: the benchmark's annotation file, whose true answers replace those of the rows.

    Raises:
        ConfigError: the benchmark is unknown, lacks a part or has no true answers in its
            annotation file; negative number of resamples.
        DataError: the predictions are malformed, partial, or not those of the meta file or the
            annotations.
    """
    task = find_task(benchmark)
    if bootstrap < 0:
        raise ConfigError(f"bootstrap is {bootstrap}; give the number of resamples, or 0 for none")
    rows, form = read_any_predictions(predictions, task)
    check = None
    if annotations is not None:
        rows, check = take_annotated_answers(rows, task, predictions, annotations)
    meta = read_meta(predictions) or {}
    digest = _checked_hash(predictions, meta)  # before METEOR, which takes minutes
    not_asked = meta.get("counts", {}).get("without_model", 0)
    metrics = _measure(rows, task, meta.get("unanswered"), meteor)
    result = {
        "format_version": FORMAT_VERSION,
        "run": run if run is not None else run_name(predictions, benchmark),
        "benchmark": benchmark,
        **summarise(rows, metrics, task, bootstrap, not_asked),
        "left_out": meta.get("left_out"),
        **{name: meta[name] for name in ("limit", "unanswered") if meta.get(name)},
        "provenance": {
            "predictions": str(predictions),
            "predictions_form": form,
            "predictions_sha256": digest,
            **_scored(rows, task, meta, check),
            "settings": {"bootstrap": bootstrap, "seed": SEED, "meteor": meteor},
        },
    }
    # The metrics come last: where they are, what comparisons read is whole.
    if per_question is not None:
        write_per_question(per_question, rows, metrics)
    write_json(out, result)
    return result


def _measure(
    rows: Sequence[Prediction], task: Task, unanswered: str | None, meteor: bool
) -> Metrics:
    """Return the metrics over all rows, or for each why the model answers nothing."""
    if unanswered:
        return dict.fromkeys(task.metrics, Unavailable(reason=f"not answered: {unanswered}"))
    # Measured once; question types and resamples are reweighted sums of the same.
    return task.measure(rows, meteor)


def _checked_hash(predictions: Path, meta: Mapping[str, Any]) -> str:
    """Return the hash of a predictions file.

    Raises:
        DataError: the meta file beside it is of another file.
    """
    digest = sha256_of_file(predictions)
    if meta.get("predictions_sha256", digest) != digest:
        raise DataError(
            f"{predictions}: is not the file that {meta_path(predictions).name} describes: damaged "
            "or edited; delete it and run `snakemake --cores all all`, or delete the meta file to "
            "score it as it is"
        )
    return digest
