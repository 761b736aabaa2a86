"""Predictions of a trained model for a benchmark's questions.

Questions are grouped by scene, so that a scene is loaded once and its questions are asked together.
Scenes are split over the ranks. Each finished scene is a file in ``predictions.partial/``, beside
``inputs.json``, which says what the answers depend on. So a killed run goes on where it stopped.
The first rank writes ``predictions.jsonl`` in the questions' order and then
``predictions.meta.json``; both appear only when every question is answered.

Cost: the model's time, plus one hash over the model folder (about a second a GB).
"""

import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from threedrs import package_versions
from threedrs.distributed.ranks import Ranks, inference_ranks, wait_for_ranks
from threedrs.errors import ConfigError, DataError
from threedrs.evaluation.answerer import (
    StudentAnswerer,
    open_store,
    prediction_rows,
    read_questions,
)
from threedrs.io.files import read_json, sha256_of_file, sha256_of_json, write_json
from threedrs.models.checkpoint.folder import lacks_grounding_head, model_hash
from threedrs.models.model_settings import PredictSettings
from threedrs.scannet.excluded_scans import count_excluded
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import (
    FORMAT_VERSION,
    Prediction,
    meta_path,
    read_predictions,
    write_predictions,
)
from threedrs.tasks.record import Record
from threedrs.workflow.code_hash import code_hash
from threedrs.workflow.locks import exclusive


def predict_benchmark(
    model: Path,
    records_file: Path,
    scenes: Path,
    settings: PredictSettings,
    out: Path,
    *,
    left_out: Mapping[str, str] | None = None,
) -> None:
    """Answer the questions of ``records_file`` and write ``out`` and its meta file.

    ``model`` is a folder, or a run's config.json: the model as its training would start. The scans
    of scenes in ``left_out`` (scene -> reason) cannot be used, so their questions are not asked,
    and the meta file says how many these are.

    Raises:
        ThreedrsError: records, a scene store, the model or the machine cannot be used; finished
            scenes are kept.
    """
    began = time.monotonic()
    with inference_ranks() as ranks, ExitStack() as locks:
        records, task, shown, asked = _choose_questions(
            model, records_file, settings, left_out or {}
        )
        inputs: dict[str, str] = {}
        if ranks.first:
            inputs = answer_inputs(model, records_file, shown, scenes, settings)
            locks.enter_context(exclusive(out))
            if note := keep_partial(out, inputs):
                _say(note)
        wait_for_ranks(ranks)  # what is not to be read has gone
        done = _read_partial(out, task)
        # Every rank must read the same answers, or two would ask about the same scene: so none
        # writes before all have read.
        wait_for_ranks(ranks)
        if done and ranks.first:
            _say(f"{len(done)} of {len(records)} questions are answered already; going on")
        mine = _own_questions(records, done, ranks)
        load = partial(StudentAnswerer.load, model, settings, ranks.device)
        for rows in _answered_scenes(mine, shown, task, scenes, load):
            write_predictions(partial_folder(out) / f"{rows[0].scene}.jsonl", rows)
        wait_for_ranks(ranks)  # the answers are complete only when all are done
        if ranks.first:
            timing = {
                "seconds": round(time.monotonic() - began, 3),
                "resumed": len(done),
                "ranks": ranks.count,
                "device": ranks.device.type,
            }
            _finish(out, records, task, settings, inputs, {**asked, "timing": timing})


def partial_folder(out: Path) -> Path:
    """Return the folder of a run that is not finished."""
    return out.with_suffix(".partial")


def keep_partial(out: Path, inputs: Mapping[str, str]) -> str | None:
    """Make the folder of a run; if one of other ``inputs`` goes, return a line that says so."""
    folder = partial_folder(out)
    file, found = folder / "inputs.json", folder.exists()
    before: Any = None
    with suppress(DataError):  # of a damaged file it is not known what the answers are of
        before = read_json(file)
    known = before if isinstance(before, dict) else {}
    differing = [name for name in inputs if known.get(name) != inputs[name]]
    if differing:
        # What cannot be removed must not pass for answers of the new inputs.
        if found:
            shutil.rmtree(folder)
        write_json(file, dict(inputs))
    if not (found and differing):
        return None
    of = f"another {', '.join(differing)}" if known else "unknown inputs"
    return f"{folder}: its answers are of {of}; starting over"


def _read_partial(out: Path, task: Task) -> dict[str, Prediction]:
    """Return the answers of the finished scenes, by question id."""
    rows: list[Prediction] = []
    for path in sorted(partial_folder(out).glob("*.jsonl")):
        with suppress(DataError):  # the scene of a damaged file is asked about again
            rows += read_predictions(path, task)
    return {row.id: row for row in rows}


def _choose_questions(
    model: Path, records_file: Path, settings: PredictSettings, left_out: Mapping[str, str]
) -> tuple[list[Record], Task, dict[str, str], dict[str, Any]]:
    """Return the questions, their benchmark, `_shown_rooms`, and what is said of the others.

    The last is ``left_out``, the questions of excluded scenes (`count_excluded`), ``limit``, how
    many of how many the settings leave, and ``unanswered``, why the model answers none.

    Raises:
        ConfigError, DataError: as `read_questions` and `_shown_rooms`; every scene is excluded.
    """
    every_record, task = read_questions(records_file)
    if settings.control and task.grounding:
        raise ConfigError(
            f"control {settings.control}: {task.title} is answered with boxes of the room; ask for "
            "it on a benchmark that is answered in words"
        )
    usable = [record for record in every_record if record.scene not in left_out]
    if not usable:
        raise DataError(f"{records_file}: every question is of a scene that is left out")
    records, unanswered = usable[: settings.limit], None
    if task.grounding and lacks_grounding_head(model):
        # Random heads would give scores that look like those of a model that grounds badly.
        records, unanswered = [], "the model has no grounding head"
    limited = unanswered is None and len(records) < len(usable)
    excluded = count_excluded(
        left_out,
        (record.scene for record in every_record if record.scene in left_out),
        [records_file.with_suffix(".summary.json")],
        "questions",
    )
    limit = {"questions": len(records), "of": len(usable)} if limited else None
    # A limit may leave the questions of one room alone, and the others' rooms can still be shown.
    every_room = _shown_rooms({record.scene for record in usable}, settings)
    shown = {record.scene: every_room[record.scene] for record in records}
    return records, task, shown, {"left_out": excluded, "limit": limit, "unanswered": unanswered}


def _own_questions(
    records: Sequence[Record], done: Mapping[str, Prediction], ranks: Ranks
) -> dict[str, list[Record]]:
    """Return this rank's open questions by scene; scenes with many questions come first."""
    # Longest first and round the ranks, so that no rank is left with the longest scene at the end.
    open_questions: dict[str, list[Record]] = {}
    # A scene is asked about whole, as its answers are one file.
    open_scenes = {record.scene for record in records if record.id not in done}
    for record in records:
        if record.scene in open_scenes:
            open_questions.setdefault(record.scene, []).append(record)
    order = sorted(open_questions, key=lambda scene: -len(open_questions[scene]))
    return {scene: open_questions[scene] for scene in order[ranks.rank :: ranks.count]}


def _shown_rooms(scenes: Collection[str], settings: PredictSettings) -> dict[str, str]:
    """Return the scene whose images are shown with each scene's questions.

    Raises:
        DataError: the control shows another room, and there is one room only.
    """
    if settings.control != "other_room":
        return {scene: scene for scene in scenes}
    shown = {}
    for scene in scenes:
        # Scans of one name before the underscore are of the same room.
        room = scene.partition("_")[0]
        others = sorted(other for other in scenes if other.partition("_")[0] != room)
        if not others:
            raise DataError(f"control other_room: all questions are of the room {room}")
        # The next by name, so that rooms are shown about equally often, in every run the same.
        shown[scene] = next((other for other in others if other > scene), others[0])
    return shown


def _answered_scenes(
    questions: Mapping[str, Sequence[Record]],
    shown: Mapping[str, str],
    task: Task,
    scenes: Path,
    load: Callable[[], StudentAnswerer],
) -> Iterator[list[Prediction]]:
    """Yield the rows of each scene's questions."""
    total, finished, began = sum(map(len, questions.values())), 0, time.monotonic()
    answerer: StudentAnswerer | None = None
    for number, (scene, records) in enumerate(questions.items(), start=1):
        # One scene is held at a time, and the model is loaded only when a question needs it.
        store = open_store(scenes, scene)
        answers = None
        if any(task.needs_model(record) for record in records):
            answerer = answerer or load()
            own = shown[scene] == scene
            answers = answerer.open(store if own else open_store(scenes, shown[scene]))
        yield prediction_rows(records, task, answers, store)
        finished += len(records)
        speed = finished / max(time.monotonic() - began, 1e-9)
        _say(
            f"{scene}, {number} of {len(questions)} scenes, {finished} of {total} questions, "
            f"{speed:.1f} a second, {(total - finished) / speed:.0f} s left"
        )


def _finish(
    out: Path,
    records: Sequence[Record],
    task: Task,
    settings: PredictSettings,
    inputs: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """Write predictions and, last, the meta file with ``facts``; then remove the scenes' files."""
    done = _read_partial(out, task)
    if missing := [record.id for record in records if record.id not in done]:
        raise DataError(
            f"{out}: {len(missing)} of {len(records)} questions have no answer (first: "
            f"{missing[0]!r}); run it again"
        )
    # A kill between the two writes must not leave these predictions beside an older meta file.
    meta_path(out).unlink(missing_ok=True)
    write_predictions(out, (done[record.id] for record in records))
    meta = {
        "format_version": FORMAT_VERSION,
        "benchmark": task.name,
        "n": len(records),
        "counts": {
            "scenes": len({record.scene for record in records}),
            "without_model": sum(not task.needs_model(record) for record in records),
        },
        "inputs": dict(inputs),
        "predictions_sha256": sha256_of_file(out),
        "decoding": settings.to_json(),
        "versions": package_versions("torch", "transformers", "numpy"),
        **facts,
    }
    write_json(meta_path(out), meta)
    shutil.rmtree(partial_folder(out))


def answer_inputs(
    model: Path,
    records_file: Path,
    shown: Mapping[str, str],
    scenes: Path,
    settings: PredictSettings,
) -> dict[str, str]:
    """Return what the answers depend on, as hashes: model, records, settings, scenes, code.

    ``shown`` names for each scene that is asked about the scene whose images are shown.

    Raises:
        DataError: there is no trained model.
        CheckpointError: the model does not fit the manifest beside it.
        StoreError: a scene store is missing or cannot be used.
    """
    # A missing store is found here, before the first question and not hours later.
    names = sorted({*shown, *shown.values()})
    return {
        "model": model_hash(model),
        "records": sha256_of_file(records_file),
        "settings": sha256_of_json(settings.to_json()),
        "scenes": sha256_of_json({n: open_store(scenes, n).content_hash() for n in names}),
        "code": code_hash("predict"),
    }


def _say(text: str) -> None:
    print(f"predict: {text}", file=sys.stderr, flush=True)
