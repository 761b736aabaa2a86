"""A checkpoint to its scores in one command: the workflow with one run that is not trained."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from threedrs.config.load import data_layout, load_config
from threedrs.config.yaml_files import merged, overlaid
from threedrs.errors import ConfigError, MachineError
from threedrs.inputs.required_files import missing_inputs
from threedrs.io.files import read_json, write_json
from threedrs.models.checkpoint.folder import is_adapter, not_trained
from threedrs.workflow.processes import quick_imports


def evaluate_checkpoint(
    checkpoint: str,
    *,
    benchmarks: Sequence[str] | None = None,
    limit: int | None = None,
    name: str | None = None,
    gpus: int = 1,
    configfiles: Sequence[Path] = (),
    values: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Predict and score with Snakemake on this machine; return the metrics of each benchmark.

    ``checkpoint`` is as a run's, and the run has its folder's name unless it is given another. With
    a ``limit``, as ``eval.limit``, the name ends in it. ``values`` are on top of the configuration,
    as `threedrs.config.yaml_files.parse_values` returns them, and ``gpus`` jobs predict at a time.

    Raises:
        ConfigError: a file or a value is wrong, the configuration has a run of this name, or this
            is not the repository's folder.
        CheckpointError: no job could load the checkpoint.
        DataError: a file of the user's is missing.
        MachineError: the workflow has failed.
    """
    asked = merged(configfiles, "eval", values)
    name = name or _folder_name(checkpoint)
    # Answers to a part of the questions lie in a folder of their own and replace no score.
    name += f"-first{limit}" if limit else ""
    runs = asked.get("runs") or {}
    _check_name(name, checkpoint, runs)
    new_run = {name: {"checkpoint": checkpoint}}
    # The configuration as it is first, for keys that there are not in a run that is switched off.
    load_config({**asked, "runs": {**runs, **new_run}}, files=False)
    # Other runs of the configuration are switched off, so that nothing of theirs is asked for.
    changes: dict[str, Any] = {
        "runs": {**dict.fromkeys(runs), **new_run},
        "eval": {"limit": limit} | ({"benchmarks": list(benchmarks)} if benchmarks else {}),
        "report": {"baseline": name},
    }
    changed = {key: {**asked.get(key, {}), **changes[key]} for key in changes}
    config = load_config({**asked, **changed})
    if not config["data"]["demo"]:  # else a start of Snakemake would say so, below its own lines
        missing_inputs(data_layout(config), config)
    model = Path(config["runs"][name]["checkpoint"])
    if model.is_dir() and not is_adapter(model):
        with quick_imports():  # after all that is said at once
            from threedrs.models.checkpoint.load_save import check_settings
        check_settings(model)
    folder = Path("results/eval") / name
    overlay = folder / "config.json"
    # Not handed on as --config, which would count more than the changes.
    write_json(overlay, overlaid(values or {}, changes))
    metrics = [folder / benchmark / "metrics.json" for benchmark in config["eval"]["benchmarks"]]
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--resources", f"gpu={gpus}"]
    command += ["--configfile", *map(str, configfiles), str(overlay), "--", *map(str, metrics)]
    if subprocess.run(command, check=False).returncode:
        raise MachineError(
            f"eval: {name} is not evaluated, for the reason above; mend it and run the same "
            "command again, which keeps what is done"
        )
    return [read_json(path) for path in metrics]


def _check_name(name: str, checkpoint: str, runs: Mapping[str, Any]) -> None:
    # A run that is switched off, or that is a checkpoint itself, is never trained.
    run = runs.get(checkpoint)
    if run is not None and "checkpoint" not in run and not Path(checkpoint).exists():
        raise ConfigError(not_trained(checkpoint))
    if name in runs:
        raise ConfigError(
            f"{checkpoint}: {name} is a run of the configuration, whose results would be "
            f"overwritten; give another name, e.g. --name {name}-checkpoint"
        )


def _folder_name(checkpoint: str) -> str:
    """Return the folder's name, after that of its parent where every training uses the same."""
    path = Path(checkpoint)
    # A link keeps its own name, which may be why it was made.
    folder = path.resolve() if ".." in path.parts else path.absolute()
    name = folder.name
    if re.fullmatch(r"model|checkpoint-\d+", name):
        name = f"{folder.parent.name}-{name}"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip("_.-")
