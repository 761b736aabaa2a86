"""Whether enough of a split's scans can be used for a run to go on, and their stores are there.

Runs after the scene stage of a whole split and reads its manifests; training and prediction wait
for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import ConfigError, DataError
from threedrs.io.files import read_json, write_json
from threedrs.scannet.excluded_scans import left_out_rows, read_left_out

FORMAT_VERSION = 1
ON_BAD_SCENE = ("skip", "fail")


@dataclass(frozen=True, kw_only=True)
class BadScenePolicy:
    """What is done about scans that cannot be used.

    Attributes:
        on_bad_scene: ``skip``: the run goes on without them; ``fail``: the first one ends it,
            after all scans of the split are looked at.
        max_bad_fraction: with ``skip``, more left-out scenes than this fraction of a split end
            the run.
    """

    on_bad_scene: str = "skip"
    max_bad_fraction: float = 0.05

    def __post_init__(self) -> None:
        if self.on_bad_scene not in ON_BAD_SCENE:
            raise ConfigError(
                f"data.on_bad_scene is {self.on_bad_scene!r}; choose one of: "
                f"{', '.join(ON_BAD_SCENE)}"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(
                f"data.max_bad_fraction is {self.max_bad_fraction}; choose from 0 to 1"
            )

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> "BadScenePolicy":
        """Return the policy in the config's section ``data``."""
        return cls(on_bad_scene=data["on_bad_scene"], max_bad_fraction=data["max_bad_fraction"])


def check_usable(split: str, manifests: Sequence[Path], policy: BadScenePolicy, out: Path) -> None:
    """Write the split's left-out scenes with their reasons, if the run may go on without them.

    Args:
        split: train or val.
        manifests: of all the split's shards.
        policy: how many scenes may be left out.
        out: JSON: ``scenes``, how many can be used, and ``left_out``.

    Raises:
        DataError: too many scenes are left out, or all; or a manifest is malformed.
    """
    left_out = read_left_out(*manifests)
    usable = sum(len(read_json(manifest)["scenes"]) for manifest in manifests)
    _require_enough(split, usable, left_out, policy)
    content = {"split": split, "scenes": usable, "left_out": left_out_rows(left_out)}
    write_json(out, {"format_version": FORMAT_VERSION, **content})


def check_limit(file: Path, policy: BadScenePolicy, out: Path) -> None:
    """Hold what `check_usable` wrote to ``file`` against ``policy``, and note this in ``out``.

    Raises:
        DataError: as `check_usable`.
    """
    content = read_json(file)
    _require_enough(content["split"], content["scenes"], read_left_out(file), policy)
    write_json(out, {"format_version": FORMAT_VERSION, **asdict(policy)})


def removed_stores(shards: Mapping[str, Sequence[str]], folder: Path) -> list[str]:
    """Return the scenes whose stores their shards' manifests list, but which are not there.

    Args:
        shards: shard -> its scenes.
        folder: where ``<scene>.zarr`` and ``shards/<shard>.json`` are; a manifest that is missing
            or malformed lists none.
    """
    removed = []
    for shard, scenes in shards.items():
        try:
            listed = set(read_json(folder / "shards" / f"{shard}.json")["scenes"])
        except (DataError, KeyError, TypeError):
            continue
        removed += [
            scene
            for scene in scenes
            if scene in listed and not (folder / f"{scene}.zarr" / "zarr.json").exists()
        ]
    return removed


def _require_enough(
    split: str, usable: int, left_out: Mapping[str, str], policy: BadScenePolicy
) -> None:
    total = usable + len(left_out)
    problem = None
    if left_out and not usable:
        problem = f"none of the {total} {split} scenes can be used"
    elif left_out and policy.on_bad_scene == "fail":
        problem = f"{_count(left_out, total, split)} cannot be used (data.on_bad_scene: fail)"
    elif len(left_out) > policy.max_bad_fraction * total:
        limit = f"data.max_bad_fraction {policy.max_bad_fraction:g}"
        problem = f"{_count(left_out, total, split)} cannot be used, more than {limit}"
    if problem is not None:
        scene, reason = next(iter(left_out.items()))
        raise DataError(
            f"{problem}, e.g. {scene}: {reason}; the scene report lists all: put their files "
            "right, or take them out of the scene list"
        )


def _count(left_out: Mapping[str, str], total: int, split: str) -> str:
    return f"{len(left_out)} of {total} {split} scenes"
