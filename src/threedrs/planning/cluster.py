"""A cluster, and how long the jobs of a rule take on it.

Closed form: the jobs of a rule take rounds of as many as fit the cluster at a time. So a rule takes
rounds x the mean job, and at least its longest job and the time in which the shared storage moves
what the jobs read and write.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from threedrs.config.resources import GPUS
from threedrs.config.section import Section, problem_lines
from threedrs.config.value_types import NaturalInt, OneOf, PositiveFloat, PositiveInt
from threedrs.config.yaml_files import read_kind
from threedrs.errors import ConfigError

HOUR = 3600.0
CLUSTER_FILE = "config/cluster.yaml"  # the example


class Needs(Section):
    """What the jobs of a rule ask for in place of the usual, as the profile's set-resources."""

    gpu: NaturalInt | None = None
    threads: PositiveInt | None = None
    mem_mb: PositiveInt | None = None
    runtime: PositiveInt | None = None
    """Minutes."""
    nodes: PositiveInt | None = None


class Cluster(Section):
    """Equal nodes around one shared storage."""

    nodes: PositiveInt
    cpus_per_node: PositiveInt
    gpus_per_node: NaturalInt
    gpu: Annotated[str, OneOf(lambda: tuple(GPUS))]
    storage_rate: PositiveFloat
    """GB a second for all jobs together."""
    disk: PositiveFloat
    """GB free on the shared storage."""
    memory_per_node: PositiveFloat = 1000.0
    """GB of host memory."""
    core_speed: PositiveFloat = 1.0
    """Speed of a core against the one measured."""
    time_limit: PositiveFloat | None = None
    """Hours that the partition allows."""
    jobs: PositiveInt = 64
    """Running at a time, Snakemake's --jobs."""
    needs: dict[str, Needs] = Field(default={})
    """By rule."""

    @property
    def peak(self) -> float:
        """Dense bfloat16 operations a second of one GPU."""
        return GPUS[self.gpu][0]

    @property
    def gpu_memory(self) -> float:
        """GB of one GPU."""
        return GPUS[self.gpu][1]


def read_cluster(path: Path) -> Cluster:
    """Return the cluster that the YAML file ``path`` describes.

    Raises:
        ConfigError: as `read_kind`, or a key is unknown, missing, or out of range; a line names the
            file and the key.
    """
    try:
        return Cluster.model_validate(read_kind(path, Cluster.model_fields, CLUSTER_FILE))
    except ValidationError as error:
        lines = problem_lines(error, Cluster)
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from None


@dataclass(frozen=True, kw_only=True)
class Step:
    """The jobs of one rule."""

    stage: str  # a target of the workflow
    rule: str
    seconds: Sequence[float]  # time of each job
    needs: Mapping[str, int]  # what each asks for: gpu, threads, mem_mb, runtime in minutes, nodes
    moved: float = 0.0  # GB that all jobs read and write
    kept: float = 0.0  # GB that stay
    checkpoints: Sequence[float] = ()  # GB of those that stay of each job, among ``kept``

    @property
    def gpu_hours(self) -> float:
        """Hours that the jobs hold GPUs, times their number."""
        return sum(self.seconds) * self.needs["gpu"] * self.needs["nodes"] / HOUR

    def at_once(self, cluster: Cluster) -> int:
        """Return how many of the jobs run at a time.

        Raises:
            ConfigError: a job does not fit a node, or asks for more nodes than there are.
        """
        there = {
            "gpu": cluster.gpus_per_node,
            "threads": cluster.cpus_per_node,
            "mem_mb": int(cluster.memory_per_node * 1000),
        }
        asked = {name: self.needs[name] for name in there}
        on_a_node = min(has // asked[name] for name, has in there.items() if asked[name])
        if not on_a_node or self.needs["nodes"] > cluster.nodes:
            fitting = {name: min(asked[name], has) for name, has in there.items()}
            raise ConfigError(
                f"cluster: {self.rule} asks for {self.needs['nodes']} nodes of {asked}, there are "
                f"{cluster.nodes} of {there}; set needs.{self.rule} in the cluster file, e.g. "
                f"{fitting}"
            )
        most = on_a_node * cluster.nodes // self.needs["nodes"]
        return min(most, cluster.jobs, len(self.seconds))

    def hours(self, cluster: Cluster) -> float:
        """Return the hours from the first job's start to the last job's end."""
        rounds = math.ceil(len(self.seconds) / self.at_once(cluster))
        mean = sum(self.seconds) / len(self.seconds)
        return max(rounds * mean, max(self.seconds), self.moved / cluster.storage_rate) / HOUR
