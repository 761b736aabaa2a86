"""Runs, scenes, teachers and benchmarks by their names: what there is, and what a user may mean.

Names are those below ``results/`` of the working folder; whatever is given with a slash is a path.
Nothing here loads torch, so that a mistyped name is said at once.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from threedrs.errors import ConfigError, DataError, StoreError, did_you_mean, nearest_path

RESULTS = Path("results")
MOST_LISTED = 8  # names in an error; of more the count and both ends are said


@dataclass(frozen=True)
class Kind:
    """Results that commands find by their names."""

    folder: str  # below results/
    pattern: str  # of what has to be there; its first part is the name
    words: str  # in errors
    target: str  # which Snakemake is asked for to make them

    def names(self, results: Path = RESULTS) -> list[str]:
        """Return the names of those that are there, sorted."""
        folder = results / self.folder
        found = {path.relative_to(folder).parts[0] for path in folder.glob(self.pattern)}
        return sorted(name.removesuffix(".zarr") for name in found)

    def advice(self, given: str, results: Path = RESULTS) -> str:
        """Return for what is not there the nearest that is, and where to look."""
        names, folder = self.names(results), results / self.folder
        if not names:
            where = f"holds no {self.words} yet; `snakemake --cores all {self.target}` makes them"
        elif len(names) > MOST_LISTED:
            where = f"holds {len(names)} {self.words}, {names[0]} to {names[-1]}"
        else:
            where = f"holds {self.words} {', '.join(names)}"
        near = nearest_path(Path(given)) if "/" in given else did_you_mean(given, names)
        return f"{near} {folder} {where}".strip()


RUNS = Kind("train", "*/model", "trained runs", "models")
SCENES = Kind("scenes", "*.zarr", "scene stores", "scenes")
TEACHERS = Kind("features", "*/*.zarr", "features of teachers", "features")


def configured_runs() -> list[str]:
    """Return the names of the runs of config/config.yaml."""
    from threedrs.config.yaml_files import MAIN, read_yaml

    return [*read_yaml(MAIN).get("runs", {})] if MAIN.is_file() else []


def benchmarks() -> list[str]:
    """Return the names of the benchmarks."""
    from threedrs.tasks.registry import TASKS

    return [*TASKS]


def completion(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Return what a shell calls to complete a name."""
    # Where nothing fits, the shells complete a path.
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


ModelName = Annotated[
    str,
    typer.Argument(
        help="A trained run, e.g. 3drs, or the folder of a checkpoint.",
        autocompletion=completion(RUNS.names),
    ),
]
SceneName = Annotated[
    str,
    typer.Argument(
        help="A scene of results/scenes, e.g. scene0000_00, or a scene store, FOLDER.zarr.",
        autocompletion=completion(SCENES.names),
    ),
]
FeaturesName = Annotated[
    str,
    typer.Argument(
        help="A teacher, e.g. vggt, or a shard of its features, "
        "results/features/<teacher>/<shard>.zarr.",
        autocompletion=completion(TEACHERS.names),
    ),
]
BenchmarkName = Annotated[
    str,
    typer.Argument(
        help="The benchmark, by a name of the config's eval.benchmarks.",
        autocompletion=completion(benchmarks),
    ),
]


def find_model(given: str) -> Path:
    """Return the folder of a run's model, or the checkpoint folder that ``given`` is the path of.

    Raises:
        ConfigError: there is neither such a run nor such a folder.
        CheckpointError: the folder is not a checkpoint.
    """
    from threedrs.models.checkpoint.folder import check_folder, not_trained
    from threedrs.models.model_settings import read_run_config

    path = trained_run(given) or Path(given)
    if path.is_dir():
        check_folder(path)
        return path
    try:
        read_run_config(path)  # a run's config.json stands for its model before any training
    except DataError:
        begun = (RESULTS / "train" / given / "checkpoints").is_dir()
        if "/" not in given and (begun or given in configured_runs()):
            raise ConfigError(not_trained(given)) from None
        fault = f"is neither a trained run nor a folder; {RUNS.advice(given)}"
        raise ConfigError(f"{given}: {fault}") from None
    return path


def trained_run(given: str) -> Path | None:
    """Return the model folder of the trained run of this name, if there is one."""
    # A name goes before a folder of the same name, which can be given as ./NAME.
    folder = RESULTS / "train" / given / "model"
    return folder if "/" not in given and folder.is_dir() else None


def check_file(path: Path) -> None:
    """Raise DataError, which names the nearest, unless a file or folder is there."""
    if not path.exists():
        advice = nearest_path(path) or "put it there, or correct the path"
        raise DataError(f"{path}: is not there; {advice}")


def check_out(out: Path, *inputs: Path | None) -> None:
    """Raise ConfigError if a command would write ``out`` over one of the ``inputs`` it reads."""
    for path in inputs:
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            raise ConfigError(
                f"{out}: is a file that is read; give another name for what is written"
            )


def check_image(out: Path | None) -> None:
    """Raise ConfigError unless the name of an image to write, if any, is of a format there is."""
    if out is not None and out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ConfigError(f"--out {out}: give a name that ends in .jpg or .png")


def find_scene(given: str) -> Path:
    """Return the store of a scene, or the store at the path ``given``, else raise StoreError."""
    is_path = "/" in given or given.endswith(".zarr")
    path = Path(given) if is_path else RESULTS / "scenes" / f"{given}.zarr"
    if is_path and path.exists() and not (path / "zarr.json").is_file():
        raise StoreError(
            f"{given}: is not a scene store; if it is a capture, "
            f"`{shlex.join(['threedrs', 'scene', 'build', given, 'NAME.zarr'])}` makes one of it"
        )
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{given}: there is no scene store here; {SCENES.advice(given)}")
    return path


def find_shards(given: str) -> list[Path]:
    """Return the shards of a teacher, or the one at the path ``given``, else raise StoreError."""
    if "/" not in given and (shards := sorted((RESULTS / "features" / given).glob("*.zarr"))):
        return shards
    if Path(given).is_dir():
        return [Path(given)]
    raise StoreError(f"{given}: there is no feature store here; {TEACHERS.advice(given)}")
