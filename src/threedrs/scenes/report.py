"""The scene report: one page on all scenes, from the shards' parts.

Per scene: frames kept and dropped, coverage, boxes, notes, a contact sheet; and which scenes are
left out of the run, why, and what to do. Pictures are linked, not embedded, and load when scrolled
to, so 1,513 scenes stay one quick page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import read_json, write_text
from threedrs.scenes.facts import FORMAT_VERSION, ROWS_FILE
from threedrs.visualization.page import page_environment


def write_scene_report(parts: Sequence[Path], out: Path) -> None:
    """Write the page.

    Args:
        parts: the shards' folders (`threedrs.scenes.facts.write_shard_facts`), below the page's.
        out: the .html file.

    Raises:
        DataError: a part is missing or malformed.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for part in parts:
        content = read_json(part / ROWS_FILE)
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            raise DataError(f"{part}: is of another format version; delete it and run again")
        folder = part.relative_to(out.parent).as_posix()
        for row in content["scenes"]:
            rows.append({**row, "picture": f"{folder}/{row['scene']}.jpg"})
        left_out += content.get("left_out", [])
    page = (
        page_environment("threedrs.scenes")
        .get_template("report.html.j2")
        .render(rows=rows, left_out=left_out, totals=_totals(rows))
    )
    write_text(out, page)


def _totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    coverages = [row["coverage"] for row in rows if row["coverage"] is not None]
    return {
        "scenes": len(rows),
        "frames": sum(row["frames"] for row in rows),
        "coverage": float(np.mean(coverages)) if coverages else None,
        "noted": sum(bool(row["notes"]) for row in rows),
        "without_pred": [
            row["scene"] for row in rows if row["split"] != "train" and not row["boxes"]["pred"]
        ],
        "without_gt": [row["scene"] for row in rows if not row["boxes"]["gt"]],
    }
