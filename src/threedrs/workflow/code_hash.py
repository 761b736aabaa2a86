"""Which code a stage's result depends on, as one hash: edited code makes the result stale.

Snakemake does not see edits in imported modules. Rules, stores, the training's fingerprint and the
predictions all ask `code_hash`, so that they agree on what counts. `threedrs.workflow.code_walk`
says what the hash covers, and what it overlooks.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import read_json, sha256_of_file, sha256_of_json, write_json
from threedrs.workflow import code_walk

KEPT = Path(".snakemake/code_hashes.json")  # below the folder that Snakemake works in


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage runs."""

    # Modules (``a.b``) or definitions in them (``a.b:name``), below the package.
    entries: tuple[str, ...]
    without: tuple[str, ...] = ()  # modules that the stage reaches and that do not shape its result
    files: tuple[str, ...] = ()  # patterns of other files that the code reads, below the package


# Helpers that shape no result of any stage: how settings are checked, whose values count by
# themselves, how a file is written, how a process is started, how it is told what happens.
SHAPELESS = ("config", "errors", "io.files", "distributed", "scannet.layout", "workflow",
             "training.run_log", "training.wandb_logger", "training.flops",
             "training.full_pack")  # fmt: skip
# The stages whose hash is also stored with the result. A rule with a script starts at the script.
STAGES = {
    "scenes": Stage(
        entries=(
            "scenes.frame_reader:open_frames",
            "scenes.build:read_inputs",
            "scenes.build:write_scene",
        )
    ),
    "features": Stage(
        entries=("teachers.extract:extract_shard",), without=("teachers.known_teachers",)
    ),
    # Scores that are computed on the way change what is logged, not the model.
    "train": Stage(
        entries=("train:main",),
        without=("teachers.known_teachers", "training.evaluation"),
        files=("models/*.txt",),
    ),
    "predict": Stage(
        entries=("predict:main",), without=("tasks.registry", "metrics"), files=("models/*.txt",)
    ),
    "awareness": Stage(
        entries=("evaluation.awareness:measure_awareness", "evaluation.answerer:StudentAnswerer"),
        without=("tasks.registry", "metrics"),
        files=("models/*.txt",),
    ),
}


def code_hash(
    stage: str | None = None,
    *entries: str,
    script: Path | None = None,
    without: Sequence[str] = (),
    files: Sequence[str] = (),
) -> str:
    """Return the hash of the code that a stage's result depends on.

    Args:
        stage: a key of `STAGES`, or None for what the other arguments name alone.
        entries: more entries, such as the module of the teacher that the configuration names.
        script: a file outside the package that is executed whole.
        without: modules to exclude, beside the stage's own.
        files: patterns of other files, beside the stage's own.

    Raises:
        LookupError: an entry is not in the package.
    """
    chosen = STAGES[stage] if stage else Stage(entries=())
    return _hash(
        (*chosen.entries, *entries),
        script,
        (*SHAPELESS, *chosen.without, *without),
        (*chosen.files, *files),
    )


def code_changes(results: Path) -> str | None:
    """Return a line on the code that has changed since the last start, or None, and note the rest.

    What the line says is a help alone: Snakemake decides what is stale by each rule's parameter.
    """
    file = results / "code.json"
    now = {stage: code_hash(stage) for stage in STAGES}
    before: Any = None
    with contextlib.suppress(DataError):  # missing, or damaged
        before = read_json(file)
    write_json(file, now)
    if before == now or not (results / "scenes").is_dir():  # nothing is there that could be stale
        return None
    if not isinstance(before, dict):
        return (
            "results: by which code they were made is not known, so every stage that this start "
            "asks for may be made again once"
        )
    changed = [stage for stage in STAGES if before.get(stage) != now[stage]]
    return f"results: the code of {', '.join(changed)} has changed since the last start"


@cache
def _hash(
    entries: tuple[str, ...], script: Path | None, without: tuple[str, ...], files: tuple[str, ...]
) -> str:
    """Return the hash; every job of a rule asks again for the same one."""
    others = [
        sha256_of_file(path)
        for pattern in files
        for path in sorted(code_walk.PACKAGE.glob(pattern))
    ]
    # Each job is a process that asks for all hashes, and to parse the package takes seconds.
    key = sha256_of_json([entries, script and sha256_of_file(script), without, others])
    kept = _kept_hashes()
    if key not in kept:
        code = code_walk.reached_code(entries, script, without)
        kept[key] = sha256_of_json([sorted(code.values()), others])
        if KEPT.parent.is_dir():  # Snakemake's own folder, if this process works beside one
            with contextlib.suppress(OSError):  # it is a help alone
                write_json(KEPT, {"package": _package_sha256(), "hashes": kept})
    return kept[key]


@cache
def _package_sha256() -> str:
    root = code_walk.PACKAGE
    return sha256_of_json(
        [[str(path.relative_to(root)), sha256_of_file(path)] for path in sorted(root.rglob("*.py"))]
    )


def _kept_hashes() -> dict[str, str]:
    """Return what earlier processes found for the package as it is now."""
    # A file of another state of the package, or a damaged one, holds nothing: all is found anew.
    try:
        kept = read_json(KEPT)
        return dict(kept["hashes"]) if kept["package"] == _package_sha256() else {}
    except (DataError, ValueError, KeyError, TypeError):
        return {}
