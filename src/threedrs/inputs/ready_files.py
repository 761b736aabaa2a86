"""Prepared files that stand in for scans and annotations: box files, arrays of records.

Their names are relative to the data root, like all files of the data. What a name gives and is not
there is taken from the next source: boxes from point clouds, scans and masks, records from the
benchmark's annotation files.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threedrs.scannet.boxes import BOX_SETS
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.registry import annotation_files


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What the config's ``instructions.ready`` and ``boxes.ready`` name."""

    # Split -> LLaVA-style array of its records, or benchmark -> array. A name may hold
    # ``{benchmark}``.
    instructions: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    boxes: str | None = None  # path with ``{split}`` and ``{set}``, or None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Ready":
        """Return what the config's ``instructions.ready`` and ``boxes.ready`` name."""
        return cls(instructions=config["instructions"]["ready"], boxes=config["boxes"]["ready"])

    def box_file(self, layout: DataLayout, split: str, box_set: str) -> Path | None:
        """Return where the prepared boxes of a split and set belong; None: nothing is named."""
        if self.boxes is None:
            return None
        return layout.root / self.boxes.format(split=split, set=box_set)

    def box_files(
        self, layout: DataLayout, split: str, arriving: Collection[Path] = ()
    ) -> dict[str, Path]:
        """Return box set -> its prepared file, for those that are there or arrive."""
        named = {name: self.box_file(layout, split, name) for name in BOX_SETS}
        return {
            name: path
            for name, path in named.items()
            if path is not None and (path.is_file() or path in arriving)
        }

    def array(
        self, layout: DataLayout, benchmark: str, split: str, arriving: Collection[Path] = ()
    ) -> Path | None:
        """Return the prepared array of a benchmark's records; None: they are converted.

        A named array that is missing is returned all the same if there is nothing to convert.
        """
        named = self.instructions.get(split)
        name = named.get(benchmark) if isinstance(named, Mapping) else named
        if not name:
            return None
        path = layout.root / name.format(benchmark=benchmark, split=split)
        if path.is_file() or path in arriving:
            return path
        others = annotation_files(layout, benchmark, split)
        return None if all(other.is_file() for other in others) else path
