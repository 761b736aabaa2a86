"""What do people see? Questions of held-out rooms that a person answers from the images alone.

    python benchmarks/person_check.py ask FOLDER [--results results] [--rooms 6] [--each 7]
    python benchmarks/person_check.py score FOLDER [--results results]

`ask` writes the frames of each room as the student gets them, one sheet a room, and questions.csv
with as many questions of each kind of answer as --each says. A person fills its last column, and
`score` prints how many answers are exact, by kind, of the person and of each run. Both sides are
held to the same rule: the answer is one of the references. All questions that a person got wrong
follow with the references, because an answer may be right in other words, and a question may have
two right answers: read them before you believe the table.
"""

import argparse
import csv
import io
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from learning import kind_of_answer
from run_results import evaluated_runs, made, predictions
from threedrs.errors import one_line_errors
from threedrs.io.files import read_text
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import Record, read_records
from threedrs.tasks.registry import evaluation_name
from threedrs.visualization.scene_plot import contact_sheet
from threedrs.visualization.scene_view import SceneView

BENCHMARKS = ("scanqa", "sqa3d")
COLUMNS = ("number", "benchmark", "kind", "id", "room", "question", "answer")
SEED = 11  # of the choice of questions
WIDTH = 648  # pixels of a frame on a sheet


def records(results: Path, benchmark: str) -> list[Record]:
    """Return the records that a benchmark asks, in the order of the file."""
    return list(read_records(made(results, f"instructions/{evaluation_name(benchmark)}.jsonl")))


def questions(results: Path, rooms: int, each: int) -> Iterator[tuple[str, str, Record]]:
    """Yield benchmark, kind of answer and record of the questions that are drawn.

    SQA3D's questions are one kind, "situated", and twice as many: a situation has to be understood
    before the answer is looked for.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    for benchmark in BENCHMARKS:
        asked = records(results, benchmark)
        chosen = sorted({record.scene for record in asked})[:rooms]
        for record in asked:
            if record.scene in chosen:
                assert record.references, "an evaluation question has references"
                situated = benchmark == "sqa3d"
                kind = "situated" if situated else kind_of_answer(record.references[0])
                found.setdefault((benchmark, kind), []).append(record)
    drawn = random.Random(SEED)
    for (benchmark, kind), of_kind in sorted(found.items()):
        most = each * (2 if kind == "situated" else 1)
        for record in drawn.sample(of_kind, min(most, len(of_kind))):
            yield benchmark, kind, record


def sheet(store: Path) -> Image.Image:
    """Return a room's frames, three in a row."""
    view = SceneView.of(SceneStore.open(store))
    tiles = [view.image(frame, WIDTH) for frame in range(len(view.jpegs))]
    return contact_sheet(tiles, columns=3, gap=6)


def ask(folder: Path, results: Path, rooms: int, each: int) -> None:
    """Write the sheets and the questions, ordered by room."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(questions(results, rooms, each), key=lambda row: (row[2].scene, row[0], row[1]))
    for scene in sorted({record.scene for _, _, record in rows}):
        sheet(results / "scenes" / f"{scene}.zarr").save(folder / f"{scene}.png")
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, (benchmark, kind, record) in enumerate(rows, 1):
            question = record.human.removeprefix("<image>").strip()
            writer.writerow([number, benchmark, kind, record.id, record.scene, question, ""])


def score(folder: Path, results: Path) -> None:
    """Print the table of exact answers and the person's wrong ones."""
    references = {
        (benchmark, record.id): record.references or []
        for benchmark in BENCHMARKS
        for record in records(results, benchmark)
    }
    with io.StringIO(read_text(folder / "questions.csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["answer"].strip()]
    asked = [(row["benchmark"], row["id"]) for row in rows]
    said = {"person": [row["answer"].strip().lower() for row in rows]}
    for run in evaluated_runs(results):
        told = {
            (benchmark, row["id"]): row["prediction"]
            for benchmark in BENCHMARKS
            for row in predictions(results, run, benchmark)
        }
        said[run] = [told[question] for question in asked]
    print(f"| kind | questions | {' | '.join(said)} |\n|---|---|{'---|' * len(said)}")
    kinds = [row["kind"] for row in rows]
    for kind in (*sorted(set(kinds)), "all"):
        chosen = [place for place, own in enumerate(kinds) if kind in (own, "all")]
        right = [
            sum(answers[place] in references[asked[place]] for place in chosen)
            for answers in said.values()
        ]
        print(f"| {kind} | {len(chosen)} | {' | '.join(map(str, right))} |")
    for row, question in zip(rows, asked, strict=True):
        if row["answer"].strip().lower() not in references[question]:
            print(f"{row['number']}. {row['question']} {row['answer']}; {references[question]}")


def main() -> None:
    """Write the questions, or score the answers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("ask", "score"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--rooms", type=int, default=6)
    parser.add_argument("--each", type=int, default=7, help="questions of each kind of answer")
    told = parser.parse_args()
    if told.what == "ask":
        ask(told.folder, told.results, told.rooms, told.each)
    else:
        score(told.folder, told.results)


if __name__ == "__main__":
    with one_line_errors("person_check"):
        main()
