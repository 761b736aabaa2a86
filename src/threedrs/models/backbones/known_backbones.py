"""Every backbone family by its name: those of this package, and those of other packages.

Another package offers a family as an entry point of the group `ENTRY_POINTS`, whose name is the
``model.name`` that means it.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from threedrs.errors import CheckpointError, ConfigError, one_line
from threedrs.models.backbones.family import Family, HubCheckpoint
from threedrs.models.backbones.llava import LlavaFamily
from threedrs.models.backbones.qwen2_vl import Qwen2VLFamily

FAMILIES: tuple[type[Family], ...] = (LlavaFamily, Qwen2VLFamily)
# Entry points and no import paths in the configuration: a trained folder has to find its family by
# its config.json, and a stranger's config.json must not name code to import.
ENTRY_POINTS = "threedrs.backbones"
HELP = "see docs/ADD_A_BACKBONE.md"
DEFAULT_NAME = "llava-video"  # the backbone of a student that is built without a name


@cache
def _known() -> dict[str, type[Family] | EntryPoint]:
    # A family of another package that takes one of our names is not found.
    own = {name: family for family in FAMILIES for name in family.checkpoints}
    return own | {p.name: p for p in entry_points(group=ENTRY_POINTS) if p.name not in own}


def backbone_names() -> tuple[str, ...]:
    """Return every valid ``model.name``."""
    return tuple(_known())


def find_family(name: str | None) -> type[Family]:
    """Return the family that ``model.name`` means; None means `DEFAULT_NAME`.

    Raises:
        ConfigError: there is none of this name, or another package's cannot be used.
    """
    name = DEFAULT_NAME if name is None else name
    known = _known().get(name)
    if known is None:
        # The configuration has named the nearest valid one before; this is for other callers.
        raise ConfigError(
            f"model.name: {name!r} is not available; valid: {', '.join(backbone_names())}"
        )
    return _load(name, known) if isinstance(known, EntryPoint) else known


def read_family(
    config: Mapping[str, Any],
    path: Path,
    tokens: int,
    *,
    name: str | None = None,
    grid: int | None = None,
) -> Family:
    """Return the family that a checkpoint's config.json describes, with ``tokens`` words.

    ``name`` and ``grid`` are ``model.name`` and ``model.grid``; None stands for those of the
    checkpoint, or the default grid of the family.

    Raises:
        CheckpointError: it is of another family or grid, or a field is missing or means other
            numbers.
    """
    for problem in mismatches(config, name=name, grid=grid):
        raise CheckpointError(f"{path}: {problem}")
    family = _describing(config)
    assert family is not None  # `mismatches` has looked
    return family.read(config, path, tokens, grid or _trained_grid(config) or family.grids[0])


def hub_checkpoint(model: Mapping[str, Any]) -> HubCheckpoint | None:
    """Return the checkpoint of the Hub that the section ``model`` starts from, if it is one."""
    if model["path"] is None:
        return None
    checkpoint = find_family(model["name"]).checkpoints[model["name"]]
    # Only a folder of the Hub's name: any other may hold anything, such as a run of one's own.
    owner, _, name = checkpoint.repository.partition("/")
    folder = Path(model["path"])
    cached = f"models--{owner}--{name}" in folder.parts
    return checkpoint if cached or folder.name == name else None


def mismatches(config: Mapping[str, Any], *, name: str | None, grid: int | None) -> Iterator[str]:
    """Yield how a checkpoint's config.json differs from ``model.name`` and ``model.grid``.

    None of these stands for that of the checkpoint, which has to be of a family all the same.
    """
    family, trained = _describing(config), _trained_grid(config)
    if family is None:
        yield (
            f"has model_type {config.get('model_type')!r:.40}, which no backbone here reads; "
            f"choose a checkpoint of {', '.join(backbone_names())}, or {HELP}"
        )
    elif name is not None and name not in family.checkpoints:
        yield f"is a checkpoint of {' or '.join(family.checkpoints)}, model.name is {name}"
    if trained and grid not in (None, trained):
        yield f"was trained with model.grid {trained}, this run has {grid}"


def _describing(config: Mapping[str, Any]) -> type[Family] | None:
    known = map(find_family, backbone_names())
    return next((one for one in known if one.describes(config)), None)


def _trained_grid(config: Mapping[str, Any]) -> Any:
    own = config.get("threedrs")
    return own.get("grid") if isinstance(own, Mapping) else None


@cache
def _load(name: str, point: EntryPoint) -> type[Family]:
    where = f"model.name: {name} (entry point {point.value} of the group {ENTRY_POINTS})"
    try:
        family = point.load()
    except Exception as error:  # whatever the other package raises
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"{where} cannot be loaded: {reason}") from error
    if not (isinstance(family, type) and issubclass(family, Family)):
        raise ConfigError(f"{where} is not a subclass of threedrs.models.backbones.family.Family")
    # Said here, at the start, and not when the student is built or a trained one is saved.
    facts = ("checkpoints", "model_type", "tensor_names")
    lacking = [fact for fact in facts if not hasattr(family, fact)]
    lacking += sorted(family.__abstractmethods__)
    if lacking:
        raise ConfigError(f"{where} lacks {', '.join(lacking)}; {HELP}")
    if name not in family.checkpoints:
        raise ConfigError(f"{where}: its checkpoints do not list {name}; {HELP}")
    return family
