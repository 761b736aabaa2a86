"""A cluster as a small YAML file says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from threedrs.errors import ConfigError, DataError
from threedrs.io.files import read_text
from threedrs.planning.cluster.figures import GPUS

ASKED = ("gpu", "threads", "mem_mb", "runtime", "nodes")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Equal nodes around one shared storage.

    Attributes:
        nodes: how many.
        cpus_per_node: cores of each.
        gpus_per_node: GPUs of each.
        memory_per_node: host memory of each, GB.
        gpu: a kind in `threedrs.planning.cluster.figures.GPUS`.
        storage_rate: GB a second that the shared storage gives all jobs together.
        disk: free space on it, GB.
        core_speed: of a core against the one of the measurements.
        time_limit: longest job that the partition lets run, hours; None: what the rules ask for.
        jobs: running at a time, Snakemake's --jobs.
        needs: rule -> what its jobs ask for instead, as set-resources in slurm/config.yaml.
    """

    nodes: int
    cpus_per_node: int
    gpus_per_node: int
    gpu: str
    storage_rate: float
    disk: float
    memory_per_node: float = 1000.0
    core_speed: float = 1.0
    time_limit: float | None = None
    jobs: int = 64
    needs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise ConfigError(
                f"cluster: gpu: {self.gpu!r} is not known; choose one of: {', '.join(GPUS)}"
            )
        for name, least in (("nodes", 1), ("cpus_per_node", 1), ("gpus_per_node", 0), ("jobs", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"cluster: {name}: {value!r} is no whole number from {least} on")
        for name in ("storage_rate", "disk", "memory_per_node", "core_speed", "time_limit"):
            value = getattr(self, name)
            if value is None and name == "time_limit":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
                raise ConfigError(f"cluster: {name}: {value!r} is no number above 0")
        if not isinstance(self.needs, Mapping):
            raise ConfigError("cluster: needs: is no table of rules (rule: {gpu: 4})")
        for rule, part in self.needs.items():
            _check_needs(rule, part)

    @property
    def peak(self) -> float:
        """Dense bfloat16 operations a second of one GPU."""
        return GPUS[self.gpu][0]

    @property
    def gpu_memory(self) -> float:
        """GB of one GPU."""
        return GPUS[self.gpu][1]


def _check_needs(rule: str, part: Any) -> None:
    if not isinstance(part, Mapping):
        raise ConfigError(f"cluster: needs.{rule}: is no table (e.g. {{gpu: 4}})")
    for key, value in part.items():
        if key not in ASKED:
            raise ConfigError(
                f"cluster: needs.{rule}.{key} is not a key; choose one of: {', '.join(ASKED)}"
            )
        least = 0 if key == "gpu" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"cluster: needs.{rule}.{key}: {value!r} is no whole number from {least} on"
            )


def read_cluster(path: Path) -> Cluster:
    """Return the cluster that the YAML file ``path`` describes.

    Raises:
        ConfigError: a key is unknown, missing, or out of range; the message names the file.
        DataError: the file cannot be read, or is not YAML.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: is not YAML ({str(error).splitlines()[0]})") from error
    known = [one.name for one in fields(Cluster)]
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: is no table of {', '.join(known)}")
    for key in content:
        if key not in known:
            raise ConfigError(f"{path}: {key} is not a key; valid keys: {', '.join(known)}")
    missing = [name for name in known[:6] if name not in content]
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)} missing")
    try:
        return Cluster(**content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
