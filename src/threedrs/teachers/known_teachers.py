"""The list of teachers, and how the configuration's ``teacher.name`` finds one.

A teacher is described beside its code (`threedrs.teachers.teacher`) and listed here by one line.
A teacher outside this package is named by its import path, ``package.module:NAME``.
"""

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from threedrs.errors import CheckpointError, ConfigError, choose_one, did_you_mean, one_line
from threedrs.teachers import hub_encoders, precomputed, weightless
from threedrs.teachers.teacher import FeatureExtractor, Teacher, TeacherSettings
from threedrs.teachers.vggt import extractor as vggt
from threedrs.workflow.code_hash import code_hash

NO_TEACHER = "none"  # runs without supervision; no features are extracted
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

TEACHERS: dict[str, Teacher] = {
    teacher.name: teacher
    for teacher in (
        vggt.VGGT,
        *hub_encoders.PUBLISHED,
        precomputed.IMPORT,
        weightless.POINTMAP,
        weightless.RANDOM,
        vggt.VGGT_TINY,
        *hub_encoders.SMALL,
    )
}


def get_teacher(name: str) -> Teacher:
    """Return the teacher of a name or of an import path.

    Raises:
        ConfigError: there is none; lists the valid names, the nearest first where one is near.
    """
    if name in TEACHERS:
        return TEACHERS[name]
    if IMPORT_PATH.fullmatch(name):
        return _imported(name)
    if name == NO_TEACHER:
        raise ConfigError(f"teacher.name {name!r} has no features to extract")
    names = [*TEACHERS, NO_TEACHER, "package.module:NAME of a teacher of your own"]
    raise ConfigError(f"teacher.name {name!r} is unknown; {choose_one(name, names)}")


def _imported(path: str) -> Teacher:
    """Return the teacher that stands at an import path."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # foreign code may raise anything while it is imported
        raise ConfigError(
            f"teacher.name {path!r}: {module_name} cannot be imported "
            f"({one_line(error)}); install its package in this environment, or put its folder "
            "on PYTHONPATH"
        ) from error
    found = {name: value for name, value in vars(module).items() if isinstance(value, Teacher)}
    if attribute not in found:
        advice = did_you_mean(attribute, [*found]) or f"it has {', '.join(found) or 'none'}"
        raise ConfigError(
            f"teacher.name {path!r}: {module_name} has no threedrs.teachers.teacher.Teacher of the "
            f"name {attribute}; {advice}"
        )
    return found[attribute]


def teacher_code_hash(name: str) -> str:
    """Return the hash of the code that opens a teacher, and of the package's code that it mentions.

    Of a teacher outside the package the file in which it is opened counts, whole.
    """
    # What opens a teacher reaches all that computes its features, and no other teacher's code.
    function = get_teacher(name).open
    package, _, module = function.__module__.partition(".")
    if package == "threedrs":
        return code_hash(None, f"{module}:{function.__qualname__}")
    return code_hash(None, script=Path(inspect.getfile(function)))


def teacher_settings(section: Mapping[str, Any]) -> TeacherSettings:
    """Return the settings of the config's section ``teacher``. Raises as `get_teacher`."""
    name, posed_images = section["name"], section.get("posed_images")
    return TeacherSettings(
        name=name,
        weights=weights_of(section, name),
        posed_images=posed_images and Path(posed_images),
        candidates=tuple(map(Path, section.get("candidates", ()))),
        **{key: section[key] for key in ("seed", "grid") if key in section},
    )


def open_extractor(settings: TeacherSettings) -> FeatureExtractor:
    """Return what computes the features; reads no weights yet.

    Raises:
        ConfigError: an unknown name.
        CheckpointError: the weights are missing; says what to fetch and where to put it.
    """
    teacher = get_teacher(settings.name)
    if teacher.weights and (fault := teacher.weights.problem(settings.name, settings.weights)):
        raise CheckpointError(fault)
    return teacher.open(settings)


def teacher_channels(name: str, stores: Iterable[Path] = ()) -> int:
    """Return the channels C of the teacher's features; 0 for ``none``.

    With any of its finished ``stores``, C is read from them, since a model folder may hold another
    size than the published checkpoint, and imported files any.

    Raises:
        ConfigError: an unknown name, or an imported teacher without a store.
        StoreError: a store is unreadable, or they differ in channels.
    """
    if name == NO_TEACHER:
        return 0
    teacher = get_teacher(name)
    if paths := sorted(set(stores)):
        from threedrs.teachers.feature_shards import common_channels

        return common_channels(paths)
    if teacher.channels is None:
        raise ConfigError(f"teacher {name}: its channels are known once features are extracted")
    return teacher.channels


def weights_of(section: Mapping[str, Any], name: str) -> Path | None:
    """Return ``teacher.weights`` as far as teacher ``name`` is concerned.

    The config gives one path, or a mapping from teacher to path where runs use several teachers.
    """
    weights = section.get("weights")
    if isinstance(weights, Mapping):
        weights = weights.get(name)
    return None if weights is None or get_teacher(name).weights is None else Path(weights)


def weights_problem(section: Mapping[str, Any], name: str) -> str | None:
    """Return what is wrong with ``teacher.weights`` for teacher ``name``, in one line, or None."""
    weights = None if name == NO_TEACHER else get_teacher(name).weights
    return weights.problem(name, weights_of(section, name)) if weights else None


def weight_files(section: Mapping[str, Any], name: str, scenes: Sequence[str]) -> list[Path]:
    """Return the files below ``teacher.weights`` that decide the features of ``scenes``."""
    weights, path = get_teacher(name).weights, weights_of(section, name)
    return weights.files(path, scenes) if weights and path else []
