"""Own captures as splits of a workflow: which there are by ``data.scenes``, and their names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import SAFE_NAME, SCENE_NAME
from threedrs.scannet.layout import SPLITS

STORE = ".zarr"


@dataclass(frozen=True, kw_only=True)
class CaptureSplit:
    """The captures of one split."""

    scenes: dict[str, Path]  # scene -> folder, .sens or store
    questions: Path | None  # what every run is asked


def capture_splits(config: Mapping[str, Any]) -> dict[str, CaptureSplit]:
    """Return split -> its captures, in the order of the configuration and of their names.

    Raises:
        DataError: a capture or a file of questions is missing, or a name cannot be used; the
            message has a line a problem.
    """
    root, found = Path(config["data"]["root"]), dict[str, CaptureSplit]()
    places: dict[str, tuple[str, Path]] = {}
    problems = []
    for split, given in config["data"]["scenes"].items():
        key = f"data.scenes.{split}"
        if split in SPLITS:
            problems.append(f"{key}: {split} is a split of ScanNet; choose another name")
        scenes: dict[str, Path] = {}
        for pattern in given["captures"]:
            paths = _captures(root, pattern)
            if not paths:
                problems.append(
                    f"{root / pattern}: is not a capture, which is a folder, a .sens or a store "
                    f"(.zarr); put it there, or correct {key}.captures"
                )
            for path in paths:
                name = path.stem if path.suffix.lower() in (".sens", STORE) else path.name
                problem = _name_problem(name, path, places.get(name), split)
                if problem is not None:
                    problems.append(f"{path}: {problem}")
                else:
                    scenes[name], places[name] = path, (split, path)
        questions = None if given["questions"] is None else root / given["questions"]
        if questions is not None and not questions.is_file():
            problems.append(f"{questions}: missing; put it there, or correct {key}.questions")
        found[split] = CaptureSplit(scenes=scenes, questions=questions)
    if problems:
        raise DataError("\n".join(problems))
    return found


def _captures(root: Path, pattern: str) -> list[Path]:
    """Return the captures that a path or a pattern names, sorted."""
    paths = [root / pattern]
    if not paths[0].exists():  # a folder's own name may hold what has a meaning in a pattern
        above = Path(paths[0].anchor) if Path(pattern).is_absolute() else root
        below = above.glob(str(paths[0].relative_to(above)))
        paths = sorted(path for path in below if not path.name.startswith("."))
    return [path for path in paths if path.is_dir() or path.suffix.lower() == ".sens"]


def _name_problem(name: str, path: Path, other: tuple[str, Path] | None, split: str) -> str | None:
    if SAFE_NAME.fullmatch(name) is None:
        return (
            f"{name!r} cannot be the name of a scene; rename it, with letters, digits, _, . and - "
            "(64 at most, a letter or digit first)"
        )
    if SCENE_NAME.fullmatch(name):
        return f"{name} is the name of a scan of ScanNet; rename it"
    if other is not None and other != (split, path):  # two patterns may name the same one
        return f"{other[1]} in split {other[0]} is called {name} too; rename or remove one"
    return None


def capture_files(capture: Path) -> list[Path]:
    """Return what lies in a capture and tells by its date whether that has changed."""
    if not capture.is_dir():
        return []
    # A file with a digit in its name is one frame of thousands, for which its folder stands: the
    # folder's date is newer when a frame is added, replaced or removed.
    inner = (
        path for path in capture.iterdir() if path.is_dir() or not any(map(str.isdigit, path.name))
    )
    return sorted(inner)
