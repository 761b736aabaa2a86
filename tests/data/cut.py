"""Cuts the small data sets in this folder from the full ones: `cut.py KIND FULL_FOLDER`.

KIND is livingroom1 or sqa3d. The README.md in each folder names the origin and the licence.
"""

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FRAMES, EVERY_FRAME = 12, 18  # 18 x 11 = 198 of 211: the whole camera path, neighbours overlap
ROWS, EVERY_ROW = 100, 35  # spread over the file, since neighbouring rows are of one scene


def cut_livingroom1(full: Path, out: Path) -> None:
    """Copy every 18th image and depth map unchanged, and number frames and poses from 0."""
    lines = (full / "trajectory.log").read_text().splitlines()
    poses = []
    for row in range(FRAMES):
        frame = row * EVERY_FRAME
        for kind, suffix in (("image", "jpg"), ("depth", "png")):
            (out / kind).mkdir(parents=True, exist_ok=True)
            target = out / kind / f"{row:05d}.{suffix}"
            shutil.copyfile(full / kind / f"{frame:05d}.{suffix}", target)
        # A pose has a line of numbers and four lines of its matrix.
        poses += [f"{row} {row} {row + 1}", *lines[5 * frame + 1 : 5 * frame + 5]]
    (out / "trajectory.log").write_text("\n".join(poses) + "\n")


def cut_sqa3d(full: Path, out: Path) -> None:
    """Keep every 35th question, and the annotations of the same question ids."""
    questions, annotations = "questions", "sqa_annotations"
    name = "v1_balanced_{}_test_scannetv2.json"
    out.mkdir(parents=True, exist_ok=True)
    table = json.loads((full / name.format(questions)).read_text())
    table["questions"] = table["questions"][::EVERY_ROW][:ROWS]
    kept = {row["question_id"] for row in table["questions"]}
    (out / name.format(questions)).write_text(json.dumps(table) + "\n")
    table = json.loads((full / name.format(annotations)).read_text())
    table["annotations"] = [row for row in table["annotations"] if row["question_id"] in kept]
    (out / name.format(annotations)).write_text(json.dumps(table) + "\n")


if __name__ == "__main__":
    kind, full = sys.argv[1:]
    {"livingroom1": cut_livingroom1, "sqa3d": cut_sqa3d}[kind](Path(full), HERE / kind)
