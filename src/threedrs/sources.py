"""Which scan has which files: one table before a run costs time, and beside the scene report."""

from collections.abc import Mapping, Sequence
from typing import Any

from threedrs.layout import DataLayout, ScanFiles

FORMAT_VERSION = 1
# What a scan may have, and the files that it takes.
KINDS: dict[str, tuple[str, ...]] = {
    "sens": ("sens",),
    "posed_images": ("posed_images",),
    "mesh": ("mesh",),
    "annotation": ("segments", "aggregation"),
    "alignment": ("meta",),
    "proposals": ("proposals",),
}


def source_table(layout: DataLayout, scenes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return which scenes have what: split -> scene -> kind -> whether its files are there.

    Seven file look-ups a scene.
    """
    return {
        "format_version": FORMAT_VERSION,
        "splits": {
            split: {scene: _has(layout.scan(scene)) for scene in members}
            for split, members in scenes.items()
        },
    }


def _has(scan: ScanFiles) -> dict[str, bool]:
    return {
        kind: all(getattr(scan, name).exists() for name in names) for kind, names in KINDS.items()
    }


def summary_rows(table: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return (split, kind, "n of m", first scenes without it) for each split and kind."""
    rows = []
    for split, scenes in table["splits"].items():
        for kind in KINDS:
            missing = [scene for scene, has in scenes.items() if not has[kind]]
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            rows.append((split, kind, f"{len(scenes) - len(missing)} of {len(scenes)}", shown))
    return rows
