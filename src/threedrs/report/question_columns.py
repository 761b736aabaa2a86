"""All questions with every run's answers, as compact columns that the page reads.

Texts stand once, in a list, and columns hold their indices; boxes likewise, a list a room. The
whole is JSON, gzipped and in base64, and the browser unpacks it: some 3 MB for 3,000 questions a
benchmark and twelve runs. Values are rounded to a tenth of a percent before anything is counted,
here as on the page, so that every count leads to exactly the questions that it counts.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from string import Formatter
from typing import Any

import numpy as np

from threedrs.report.results import Results
from threedrs.report.scores import run_colours
from threedrs.scannet.boxes import box_iou_NM
from threedrs.tasks.base import Task
from threedrs.tasks.record import COORD, IMAGE, Record
from threedrs.tasks.registry import find_task

TENTHS = 10  # of a percent a stored value has
NOT_ASKED = "(not asked, no detector box)"


class Questions:
    """The columns of all benchmarks. Raises DataError where a file is missing or malformed."""

    def __init__(self, results: Results, baseline: str) -> None:
        self._results, self._baseline = results, baseline
        self._texts: dict[str, int] = {}
        # Scene -> its boxes, each with its index.
        self._boxes: dict[str, dict[tuple[float, ...], int]] = {}
        self._benchmarks = [self._columns(name) for name in results.benchmarks]

    def counts(self) -> list[dict[str, Any]]:
        """Return, for each run but the baseline, on how many questions it did better or worse."""
        runs, counts = self._results.runs, []
        for columns in self._benchmarks:
            values = dict(zip(columns["runs"], map(np.array, columns["values"]), strict=True))
            base = values.pop(runs.index(self._baseline), None)
            counts += [
                {
                    "run": runs[run],
                    "benchmark": columns["name"],
                    "metric": columns["metric"],
                    "better": int((mine > base).sum()),
                    "worse": int((mine < base).sum()),
                    "same": int((mine == base).sum()),
                }
                for run, mine in values.items()
                if base is not None
            ]
        return counts

    def boxes(self) -> dict[str, np.ndarray]:
        """Return scene -> the boxes (B, 6) that its questions and answers are about."""
        return {scene: np.array(list(boxes)).reshape(-1, 6) for scene, boxes in self._boxes.items()}

    def packed(self) -> str:
        """Return all columns as the page has them: base64 of gzipped JSON."""
        groups = self._results.summary["groups"]
        content = {
            "runs": list(self._results.runs),
            "colours": list(run_colours(self._results.runs).values()),
            # The two runs that stand side by side at first, of two settings where there are two.
            "pair": [self._baseline, groups[1]["runs"][0] if groups[1:] else self._baseline],
            "texts": list(self._texts),
            "scenes": list(self._boxes),
            "boxes": [list(boxes) for boxes in self._boxes.values()],
            "benchmarks": self._benchmarks,
        }
        return pack(content)

    def _columns(self, name: str) -> dict[str, Any]:
        task, results = find_task(name), self._results
        values: dict[str, dict[str, float]] = {}
        for run in results.runs:
            if not results.metrics(run, name).get("unanswered"):
                judged = results.per_question(run, name)
                tenths = np.rint(judged.values(task.judged_by) * TENTHS).astype(int).tolist()
                values[run] = dict(zip(judged.ids, tenths, strict=True))
        # With a limit a part of the questions was asked.
        asked = [
            record
            for record in results.records(name)
            if values and all(record.id in mine for mine in values.values())
        ]
        for record in asked:
            self._boxes.setdefault(record.scene, {})
        scenes = {scene: index for index, scene in enumerate(self._boxes)}
        true: list[list[int]] = [[] for _ in asked]
        answers, chosen, no_object = [], [], []
        for run in values:
            rows = results.answers(run, name, [record.id for record in asked])
            if task.choose is None:
                texts = map(partial(_answer_text, task), rows, asked)
                answers.append([self._text(text) for text in texts])
                continue
            # All runs have the same true boxes.
            true = [self._box_indices(row["scene"], row["gt"]) for row in rows]
            picked = (task.choose(np.asarray(row["scores"])) for row in rows)
            boxes = [
                [row["boxes"][i] for i in some] for row, some in zip(rows, picked, strict=True)
            ]
            texts = map(_boxes_in_words, boxes, (row["gt"] for row in rows))
            answers.append([self._text(text) for text in texts])
            scene_names = (row["scene"] for row in rows)
            chosen.append([*map(self._box_indices, scene_names, boxes)])
            # As `count_alike` counts them. ScanRefer takes a box even so.
            no_object.append([int(np.argmax(row["scores"]) == len(row["boxes"])) for row in rows])
        truth: list[Sequence[str]] = [record.references or () for record in asked]
        if task.grounding:
            truth = [[_count(len(boxes))] for boxes in true]
        return {
            "name": name,
            "metric": task.judged_by,
            # A closeness has no right and wrong.
            "closeness": task.judged_by == "cider",
            "grounding": task.grounding,
            "runs": [results.runs.index(run) for run in values],
            "id": [record.id for record in asked],
            "scene": [scenes[record.scene] for record in asked],
            "type": [self._text(record.question_type or "") for record in asked],
            "question": [self._text(question_text(record, task)) for record in asked],
            "truth": [[self._text(text) for text in texts] for texts in truth],
            "pointed": [
                self._box_indices(record.scene, [record.box_input] if record.box_input else [])
                for record in asked
            ],
            "true": true,
            "values": [[mine[record.id] for record in asked] for mine in values.values()],
            "answers": answers,
            "chosen": chosen,
            "no_object": no_object,
        }

    def _text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def _box_indices(self, scene: str, boxes: Iterable[Sequence[float]]) -> list[int]:
        known = self._boxes.setdefault(scene, {})
        # Millimetres, as finer differences cannot be seen.
        rounded = (tuple(round(number, 3) for number in box) for box in boxes)
        return [known.setdefault(box, len(known)) for box in rounded]


def _answer_text(task: Task, row: Mapping[str, Any], record: Record) -> str:
    # Such an empty answer is not the model's, and is not counted among those.
    return row["prediction"] if task.needs_model(record) else NOT_ASKED


def _boxes_in_words(chosen: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> str:
    """Return how many boxes were chosen, and how well the best fits a true one."""
    count = _count(len(chosen))
    if not len(chosen):
        return count
    if not len(true):
        return f"{count}, where there is no object"
    best = box_iou_NM(np.array(chosen), np.array(true)).max()
    return f"{count}, IoU {'at best ' * (len(chosen) > 1)}{best:.2f}"


def _count(boxes: int) -> str:
    return "no object" if boxes == 0 else "1 box" if boxes == 1 else f"{boxes} boxes"


def pack(content: Any) -> str:
    """Return a JSON value as pages hold it: base64 of its gzipped text."""
    text = json.dumps(content, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def question_text(record: Record, task: Task) -> str:
    """Return what a question asks, without what the prompt says to every one."""
    parts = list(Formatter().parse(task.prompt))
    if any(field is not None for _, field, _, _ in parts):
        start = parts[0][0]
        end = parts[-1][0] if parts[-1][1] is None else ""
        if record.human.startswith(start) and record.human.endswith(end):
            return record.human.removeprefix(start).removesuffix(end).strip()
    # Questions about a box differ by its place alone.
    where = "the box"
    if record.box_input:
        where = f"({', '.join(f'{metres:.2f}' for metres in record.box_input[:3])}) m"
    text = record.human.replace(IMAGE, "").replace(f"{COORD} ,", f"{COORD},")
    return text.replace(COORD, where).strip()
