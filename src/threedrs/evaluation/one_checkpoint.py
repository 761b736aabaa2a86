"""A checkpoint to its scores in one command: the workflow with one run that is not trained."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threedrs.config.load import load_config
from threedrs.config.yaml_files import merged
from threedrs.errors import MachineError
from threedrs.io.files import read_json, write_json


def evaluate_checkpoint(
    checkpoint: str,
    *,
    benchmarks: Sequence[str] | None = None,
    limit: int | None = None,
    name: str | None = None,
    gpus: int = 1,
    configfiles: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Predict and score with Snakemake on this machine; return the metrics of each benchmark.

    Args:
        checkpoint: as a run's ``checkpoint``.
        benchmarks: to ask; None: those of the configuration.
        limit: as ``eval.limit``; the run's name then ends in it.
        name: of the run; None: that of the folder.
        gpus: jobs of prediction at a time.
        configfiles: on top of config/config.yaml.

    Raises:
        ConfigError: a file or a value is wrong, or this is not the repository's folder.
        MachineError: a job has failed.
    """
    asked = merged(configfiles, "eval")
    name = name or re.sub(r"[^A-Za-z0-9_.-]", "-", Path(checkpoint).name).lstrip("_.-")
    name += f"-first{limit}" if limit else ""
    # Other runs of the configuration are switched off, so that nothing of theirs is asked for.
    changes: dict[str, Any] = {
        "runs": {**dict.fromkeys(asked.get("runs") or {}), name: {"checkpoint": checkpoint}},
        "eval": {"limit": limit} | ({"benchmarks": list(benchmarks)} if benchmarks else {}),
        "report": {"baseline": name},
    }
    config = load_config(
        {**asked, **{key: {**asked.get(key, {}), **changes[key]} for key in changes}}
    )
    folder = Path("results/eval") / name
    overlay = folder / "config.json"
    write_json(overlay, changes)
    metrics = [folder / benchmark / "metrics.json" for benchmark in config["eval"]["benchmarks"]]
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--resources", f"gpu={gpus}"]
    command += ["--configfile", *map(str, configfiles), str(overlay), "--", *map(str, metrics)]
    if subprocess.run(command, check=False).returncode:
        raise MachineError(f"eval: a job failed, see above; the same command goes on: {name}")
    return [read_json(path) for path in metrics]
