"""Sampled questions with images: what was asked, what each run answered, where, and how well.

How good an answer is comes from the metrics' own per-question values, so that the counts here and
the scores agree. The sample takes outcomes in turn (every run right, one run better, none right,
...), evenly spaced within each, so that rare differences between runs can be looked at; how often
each outcome occurs in all questions stands beside it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from threedrs.report.results import Results
from threedrs.scannet.boxes import box_iou_NM
from threedrs.scenes.store import SceneStore
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record
from threedrs.tasks.registry import find_task
from threedrs.visualization.box_overlay import (
    RUN_COLOURS,
    TRUE_COLOUR,
    DrawnBox,
    draw_boxes,
    frames_that_show,
)
from threedrs.visualization.room_map import RoomMap
from threedrs.visualization.scene_plot import plot_frames
from threedrs.visualization.scene_view import SceneView

MOST_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one run said; ``mark``: right, partly, wrong, or "" where an answer is neither."""

    run: str
    text: str
    value: float
    mark: str
    colour: str


@dataclass(frozen=True, kw_only=True)
class PageImage:
    """An image for the page, as a data URI."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question; ``better`` and ``worse`` name the runs that did so against the baseline."""

    benchmark: str
    id: str
    scene: str
    question_type: str
    question: str
    references: Sequence[str]
    images: Sequence[PageImage]
    unseen: str
    answers: Sequence[Answer]
    better: Sequence[str]
    worse: Sequence[str]
    all_right: bool
    none_right: bool


@dataclass(frozen=True, kw_only=True)
class OutcomeCount:
    """Questions of a benchmark on which a run did better, worse or as well as the baseline."""

    run: str
    benchmark: str
    metric: str
    better: int
    worse: int
    same: int


class Browser:
    """The questions of one benchmark, with every run's answers and how good they are."""

    def __init__(self, results: Results, benchmark: str, baseline: str) -> None:
        self.benchmark, self.metric = benchmark, find_task(benchmark).judged_by
        self._results = results
        records = results.records(benchmark)
        self._values: dict[str, dict[str, float]] = {}
        for run in results.runs:
            if results.metrics(run, benchmark).get("unanswered"):
                continue
            per_question = results.per_question(run, benchmark)
            values = per_question.values(self.metric).tolist()
            self._values[run] = dict(zip(per_question.ids, values, strict=True))
        self._runs = list(self._values)
        self._baseline = baseline if baseline in self._runs else None
        # With a limit a part of the questions was asked.
        asked = [set(values) for values in self._values.values()]
        self._records = [r for r in records if asked and all(r.id in ids for ids in asked)]

    def counts(self) -> list[OutcomeCount]:
        """Return, for each run but the baseline, on how many questions it did better or worse."""
        counts = []
        for run in self._runs:
            if self._baseline not in (None, run):
                signs = [self._sign(run, record.id) for record in self._records]
                counts.append(
                    OutcomeCount(
                        run=run,
                        benchmark=self.benchmark,
                        metric=self.metric,
                        better=signs.count(1),
                        worse=signs.count(-1),
                        same=signs.count(0),
                    )
                )
        return counts

    def examples(self, wanted: int, rooms: "Rooms") -> list[Example]:
        """Return up to ``wanted`` examples."""
        outcomes = [self._outcome(record.id) for record in self._records]
        chosen = [self._records[row] for row in choose(outcomes, wanted)]
        # Only these rows of the predictions are kept, as a file may hold 9,500 of them.
        ids = {record.id for record in chosen}
        predictions = {
            run: self._results.predictions(run, self.benchmark, ids) for run in self._runs
        }
        return [
            self._example(record, {run: predictions[run][record.id] for run in predictions}, rooms)
            for record in chosen
        ]

    def _sign(self, run: str, question: str) -> int:
        if self._baseline is None:
            return 0
        difference = self._values[run][question] - self._values[self._baseline][question]
        # Sums of floats: the same answer may differ in the last digit.
        return 0 if abs(difference) < 1e-9 else 1 if difference > 0 else -1

    def _outcome(self, question: str) -> tuple[Any, ...]:
        marks = [self._mark(run, question) for run in self._runs]
        return (*(self._sign(run, question) for run in self._runs), *marks)

    def _mark(self, run: str, question: str) -> str:
        value = self._values[run][question]
        if self.metric == "cider":
            return ""  # a closeness, which has no right and wrong
        return "right" if value >= 100 - 1e-9 else "partly" if value > 1e-9 else "wrong"

    def _example(
        self, record: Record, predictions: Mapping[str, Prediction], rooms: "Rooms"
    ) -> Example:
        first = predictions[self._runs[0]]
        drawn = [DrawnBox(box=box, colour=TRUE_COLOUR, label="true") for box in first.gt]
        if record.box_input is not None:
            box = np.asarray(record.box_input)
            drawn.append(DrawnBox(box=box, colour=TRUE_COLOUR, label="this one"))
        answers = []
        for index, run in enumerate(self._results.runs):
            if run not in predictions:
                continue  # its place in the colours stays its own
            colour = RUN_COLOURS[index % len(RUN_COLOURS)]
            prediction = predictions[run]
            text = prediction.prediction or "(no answer)"
            if prediction.scores is not None:
                chosen = chosen_boxes(prediction)
                text = _boxes_in_words(chosen, prediction.gt)
                drawn += [DrawnBox(box=box, colour=colour, label=run) for box in chosen]
            answers.append(
                Answer(
                    run=run,
                    text=text,
                    value=self._values[run][record.id],
                    mark=self._mark(run, record.id),
                    colour=colour,
                )
            )
        marks = {answer.mark for answer in answers}
        images, unseen = rooms.images(record.scene, drawn)
        return Example(
            benchmark=self.benchmark,
            id=record.id,
            scene=record.scene,
            question_type=record.question_type or "",
            question=record.human.replace("<image>", "").replace("<coord>", "the box").strip(),
            references=list(record.references or ()),
            images=images,
            unseen=unseen,
            answers=answers,
            better=[run for run in self._runs if self._sign(run, record.id) > 0],
            worse=[run for run in self._runs if self._sign(run, record.id) < 0],
            all_right=marks == {"right"},
            none_right="right" not in marks and "" not in marks,
        )


class Rooms:
    """Images of scenes; a scene is read once."""

    def __init__(self, results: Results) -> None:
        self._folder = results.folder / "scenes"
        self._views: dict[str, tuple[SceneView, RoomMap]] = {}

    def images(self, scene: str, drawn: Sequence[DrawnBox]) -> tuple[list[PageImage], str]:
        """Return frames and room with the boxes, and in words which boxes no frame shows."""
        if scene not in self._views:
            view = SceneView.of(SceneStore.open(self._folder / f"{scene}.zarr"))
            self._views[scene] = view, RoomMap(view)
        view, room = self._views[scene]
        if not drawn:
            sheet = as_page_image(plot_frames(view), f"Frames of {scene}")
            return [sheet, as_page_image(room.with_boxes([], []), f"{scene} from above")], ""
        frames, unseen = frames_that_show(view, drawn, MOST_FRAMES)
        names = ", ".join(dict.fromkeys(box.label for box in drawn))
        images = [
            as_page_image(
                draw_boxes(view, frame, drawn),
                f"Frame {view.frame_ids[frame]} of {scene} with boxes: {names}",
            )
            for frame in frames
        ]
        above = room.with_boxes(drawn, frames)
        images.append(as_page_image(above, f"{scene} from above with boxes: {names}"))
        return images, ", ".join(dict.fromkeys(box.label for box in unseen))


def choose(outcomes: Sequence[tuple[Any, ...]], wanted: int) -> list[int]:
    """Return up to ``wanted`` row numbers, rising: outcomes in turn, evenly spaced within each."""
    rows: dict[tuple[Any, ...], list[int]] = {}
    for row, outcome in enumerate(outcomes):
        rows.setdefault(outcome, []).append(row)
    shares = dict.fromkeys(rows, 0)
    # One by one to the outcome that has fewest so far, so that rare ones are not crowded out.
    for _ in range(min(wanted, len(outcomes))):
        open_outcomes = [outcome for outcome in rows if shares[outcome] < len(rows[outcome])]
        shares[min(open_outcomes, key=lambda outcome: shares[outcome])] += 1
    chosen: list[int] = []
    for outcome, members in rows.items():
        places = np.linspace(0, len(members) - 1, shares[outcome]).round().astype(int)
        chosen += [members[place] for place in places]
    return sorted(chosen)


def chosen_boxes(prediction: Prediction) -> np.ndarray:
    """Return the boxes (P, 6) that a grounding row counts as predicted, as its metric does."""
    assert prediction.scores is not None
    choose = find_task(prediction.benchmark).choose
    assert choose is not None
    return prediction.boxes[choose(prediction.scores)]


def _boxes_in_words(chosen: np.ndarray, true: np.ndarray) -> str:
    if not len(chosen):
        return "no such object"
    count = "1 box" if len(chosen) == 1 else f"{len(chosen)} boxes"
    if not len(true):
        return f"{count}, where there is no such object"
    overlap = float(box_iou_NM(chosen, true).max())
    return f"{count}, overlap (IoU) {'' if len(chosen) == 1 else 'at best '}{overlap:.2f}"


def as_page_image(image: Image.Image, alt: str) -> PageImage:
    """Return the image as a JPEG data URI."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=76, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return PageImage(uri=uri, alt=alt, width=image.width, height=image.height)
