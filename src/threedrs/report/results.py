"""What the other stages left, read for the report: one object, checked when read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from threedrs.errors import DataError
from threedrs.evaluation.aggregate import FORMAT_VERSION
from threedrs.evaluation.awareness import read_awareness
from threedrs.evaluation.compare import FILE_NAME, PerQuestion, read_per_question
from threedrs.evaluation.tables import frames_mark, supervision_notes
from threedrs.io.files import read_json, read_json_lines, read_result
from threedrs.tasks.base import Column
from threedrs.tasks.record import Record, read_records
from threedrs.tasks.registry import evaluation_name, find_task, headline_columns


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results folder, for the given runs, benchmarks and training mixes.

    It may hold more, left from an earlier configuration; that is not looked at.

    Every property raises DataError where a file is missing or malformed.
    """

    folder: Path
    runs: tuple[str, ...]
    benchmarks: tuple[str, ...]
    mix_names: tuple[str, ...]

    @property
    def columns(self) -> list[Column]:
        """The headline columns of these benchmarks."""
        return headline_columns(self.benchmarks)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``."""
        path = self.folder / "report" / "summary.json"
        summary = read_result(path, FORMAT_VERSION, "report")
        if missing := [run for run in self.runs if run not in summary["runs"]]:
            raise DataError(f"{path}: has no run {missing[0]!r}; aggregate again")
        return summary

    def metrics(self, run: str, benchmark: str) -> dict[str, Any]:
        """Return the metrics file of a run and benchmark."""
        return self.summary["runs"][run]["benchmarks"][benchmark]

    @property
    def excluded(self) -> list[tuple[str, dict[str, Any]]]:
        """The benchmarks with questions that no run was asked: ``left_out`` and ``of`` how many."""
        found = []
        for name in self.benchmarks:
            facts = self._of_any_run(name, "left_out")
            if facts and facts["questions"]:
                limit = self._of_any_run(name, "limit") or {"of": self._of_any_run(name, "n")}
                found.append((name, {**facts, "of": facts["questions"] + limit["of"]}))
        return found

    def mark(self, runs: Sequence[str]) -> str:
        """Return the mark that stands at the scores of these runs, if any."""
        return frames_mark(self.summary, runs)

    @property
    def limited(self) -> list[tuple[str, dict[str, int]]]:
        """The benchmarks of which the first questions were asked only: asked, and of how many."""
        found = [(name, self._of_any_run(name, "limit")) for name in self.benchmarks]
        return [(name, facts) for name, facts in found if facts]

    @property
    def unanswered(self) -> list[tuple[str, str, str]]:
        """The runs and benchmarks that a model does not answer, and why."""
        reasons = {
            (run, name): self.metrics(run, name).get("unanswered")
            for run in self.runs
            for name in self.benchmarks
        }
        return [(run, name, reason) for (run, name), reason in reasons.items() if reason]

    def _of_any_run(self, benchmark: str, key: str) -> Any:
        """Return what the metrics of the run say that answers most questions."""
        found = [self.metrics(run, benchmark) for run in self.runs]
        return sorted(found, key=lambda metrics: -metrics["n"])[0].get(key)

    def controls(self, run: str) -> list[dict[str, Any]]:
        """Return the metrics files of what a run was asked again as a control."""
        found = (name.rpartition("/") for name in self.summary["sources"])
        asked = [name for of, _, name in found if of == run and name not in self.benchmarks]
        return [read_json(self.folder / "eval" / run / name / "metrics.json") for name in asked]

    @property
    def grey_files(self) -> dict[str, str]:
        """The files that the grey rows of the scores come from, each with its SHA-256."""
        files = {}
        for name, digest in self.summary["sources"].items():
            if name == "trivial_answers":
                files[f"results/{name}.json"] = digest
            elif name.rpartition("/")[2] not in self.benchmarks:
                files[f"results/eval/{name}/metrics.json"] = digest
        return files

    def train(self, run: str) -> dict[str, Any] | None:
        """Return the training summary of a run; None: it evaluates a checkpoint as it is."""
        return self.summary["runs"][run]["train"]

    @property
    def supervision(self) -> list[tuple[str, str]]:
        """The runs whose teacher did not see the student's frames, and what that means."""
        notes = {run: supervision_notes(self.summary["runs"][run]) for run in self.runs}
        return [(run, " ".join(lines)) for run, lines in notes.items() if lines]

    @property
    def asked_as_published(self) -> list[str]:
        """The runs that are trained with an instruction sentence and asked without it."""

        def style(run: str, name: str) -> str | None:
            meta = self.metrics(run, name).get("provenance", {}).get("predictions_meta") or {}
            return meta.get("decoding", {}).get("prompt")

        trained = (run for run in self.runs if self.train(run))
        return [
            run for run in trained if "reference" in {style(run, name) for name in self.benchmarks}
        ]

    def awareness(self) -> dict[str, dict[str, Any]]:
        """Return run -> the content of its ``awareness.json``, of the runs that have one."""
        paths = {run: self.folder / "eval" / run / "awareness.json" for run in self.runs}
        return {run: read_awareness(path) for run, path in paths.items() if path.is_file()}

    def config(self, run: str) -> dict[str, Any]:
        """Return the resolved configuration of a run."""
        return self.summary["runs"][run]["config"]

    def histories(self) -> dict[str, list[dict[str, Any]]]:
        """Return run to the rows of its training log."""
        return {
            run: list(read_json_lines(self.folder / "train" / run / "log.jsonl"))
            for run in self.runs
            if self.train(run) is not None
        }

    def mixes(self) -> dict[str, dict[str, Any]]:
        """Return mix to its summary."""
        mixes = self.folder / "instructions" / "mixes"
        return {name: read_json(mixes / f"{name}.summary.json") for name in self.mix_names}

    def records(self, benchmark: str) -> list[Record]:
        """Return the questions of a benchmark that were asked, in their order."""
        file = self.folder / "instructions" / f"{evaluation_name(benchmark)}.jsonl"
        records = list(read_records(file))
        facts = dict(self.excluded).get(benchmark, {"scenes": []})
        excluded = {row["scene"] for row in facts["scenes"]}
        return [record for record in records if record.scene not in excluded]

    def answers(self, run: str, benchmark: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of a run's predictions for the questions ``ids``, in their order.

        Raises:
            DataError: the file is missing, or holds no answer to one of them.
        """
        path = self.folder / "eval" / run / benchmark / "predictions.jsonl"
        # Scoring has checked the rows. This parser takes a third of the time of Python's, and a
        # study has 60 such files of up to 100 MB.
        try:
            with path.open("rb") as stream:
                rows = {row["id"]: row for row in map(from_json, stream)}
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); predict again") from error
        for question in ids:
            if question not in rows:
                raise DataError(f"{path}: has no answer to question {question}; predict again")
        return [rows[question] for question in ids]

    def per_question(self, run: str, benchmark: str) -> PerQuestion:
        """Return what each question contributes to a run's metrics."""
        path = self.folder / "eval" / run / benchmark / FILE_NAME
        return read_per_question(path, find_task(benchmark))
