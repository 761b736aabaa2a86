"""The table of benchmarks. A new one is a file beside this one and a line here."""

from collections.abc import Iterable
from pathlib import Path

from threedrs.errors import ConfigError, choose_one
from threedrs.scannet.layout import DataLayout
from threedrs.tasks import multi3drefer, scan2cap, scanqa, scanrefer, sqa3d
from threedrs.tasks.annotation_rows import TRAINING_SPLIT
from threedrs.tasks.base import Column, Task

# In the order of the training mix and of the tables, which is the paper's.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        scanrefer.TASK,
        multi3drefer.TASK,
        scan2cap.TASK,
        scanqa.TASK,
        sqa3d.TASK,
    )
}
# As which `threedrs ask` puts a question, a description of an object to find, and a box.
QUESTION, FIND, DESCRIBE = scanqa.TASK, scanrefer.TASK, scan2cap.TASK


def find_task(name: str, split: str | None = None) -> Task:
    """Return the benchmark ``name``, which must have ``split`` where one is given.

    Raises:
        ConfigError: there is no such benchmark, it lacks a part, or it has no such split.
    """
    if name not in TASKS:
        raise ConfigError(f"unknown benchmark {name!r}; {choose_one(name, TASKS)}")
    task = TASKS[name]
    if fault := task.fault():
        raise ConfigError(f"benchmark {name}: {fault}; docs/ADD_A_BENCHMARK.md lists the parts")
    if split is not None and split not in task.splits:
        raise ConfigError(f"{name} has no split {split!r}; choose one of: {', '.join(task.splits)}")
    return task


def evaluation_name(name: str) -> str:
    """Return ``<benchmark>_<split>``, the file name of the records that scores are published for.

    Raises:
        ConfigError: there is no such benchmark.
    """
    return f"{name}_{find_task(name).evaluation_split}"


def headline_columns(names: Iterable[str] | None = None) -> list[Column]:
    """Return the headline columns of the benchmarks, or of all, in the order of `TASKS`."""
    chosen = TASKS if names is None else set(names)
    return [column for name, task in TASKS.items() if name in chosen for column in task.columns]


def annotation_files(layout: DataLayout, name: str, split: str | None = None) -> list[Path]:
    """Return a benchmark's annotation files; without ``split`` those to train and to evaluate on.

    Raises:
        ConfigError: there is no such benchmark or split.
    """
    task = find_task(name, split)
    splits = [split] if split else [TRAINING_SPLIT, task.evaluation_split]
    return [
        layout.benchmark_folder / file.path.format(split=part)
        for part in splits
        for file in task.files
    ]
