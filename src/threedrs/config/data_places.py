"""Where the configured data lies: paths below ``data.root``, and whether that is right."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from threedrs.errors import nearest_path


def below_root(named: Any, root: Path) -> Any:
    """Return a path, or each of a mapping, with ``root`` before it if it is there only so."""
    if isinstance(named, Mapping):
        return {name: below_root(path, root) for name, path in named.items()}
    if named is None or Path(named).exists() or not (root / named).exists():
        return named
    return (root / named).as_posix()


def root_problem(config: Mapping[str, Any]) -> str | None:
    """Return that ``data.root`` is not the data's folder, with the one that may be meant, or None.

    That may be the one above it or one below it. A folder without data is not a problem of the
    root: the missing files are named.
    """
    root = Path(config["data"]["root"])
    # A download makes the folders that it fills.
    arriving = any(root in (to := Path(entry["to"]), *to.parents) for entry in config["download"])
    if config["data"]["demo"] or arriving:
        return None
    if root.is_dir():
        right = None if _holds_data(root, config) else _data_beside(root, config)
        if right is None:
            return None
        return f"data.root: {root} does not hold the data, but {right} does; name that one"
    advice = " ".join(filter(None, [nearest_path(root), "name the folder that holds scannet/"]))
    return f"data.root: {root} is not a folder; {advice}, as in --config 'data={{root: FOLDER}}'"


def _holds_data(root: Path, config: Mapping[str, Any]) -> bool:
    """Whether any of the places that the section ``data`` names is below ``root``."""
    keys = ("scans", "posed_images", "point_clouds", "masks", "labels", "benchmark")
    named = [config["data"][key] for key in keys]
    return any((root / name).exists() for name in named if name)


def _data_beside(root: Path, config: Mapping[str, Any]) -> Path | None:
    """Return the folder of the data if that is one level above or below ``root``."""
    with suppress(OSError):  # a folder that this user may not list
        inner = [path for path in sorted(root.iterdir()) if path.is_dir()]
        around = (Path(os.path.normpath(root / "..")), *inner)
        return next((path for path in around if _holds_data(path, config)), None)
    return None
