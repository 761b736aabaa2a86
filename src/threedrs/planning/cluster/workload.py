"""What a plan is made for: a configuration on a cluster, and the shape of its jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from threedrs.config.load import Config, data_layout, resolve_run
from threedrs.config.resources import USUAL_NEEDS
from threedrs.inputs.required_files import shards
from threedrs.planning.cluster.figures import SCANNET, figure
from threedrs.planning.cluster.schedule import Job
from threedrs.planning.cluster.settings import Cluster

MEASURED_FRAMES = 32
# In the order in which the plan shows them; a test compares them with the Snakefile's rules.
RULES = (
    "boxes",
    "candidates",
    "build_scenes",
    "restore_store",
    "check_scenes",
    "check_limit",
    "scene_facts",
    "scene_report",
    "extract_features",
    "convert_instructions",
    "balance",
    "run_config",
    "train",
    "predict",
    "score",
    "aggregate",
    "build_report",
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be done where.

    Attributes:
        config: the checked configuration, of size 7b.
        teachers: run -> its teacher; in ``config`` they may be ``none``, as no weights are needed.
        cluster: it runs on.
    """

    config: Config
    teachers: Mapping[str, str]
    cluster: Cluster

    @cached_property
    def frames(self) -> float:
        """Frames a scene, as a share of those of the measurements."""
        return self.config["frames"]["count"] / MEASURED_FRAMES

    @cached_property
    def scenes(self) -> dict[str, list[str]]:
        """Split -> its scenes: those of the data, or as many as ScanNet's."""
        layout = data_layout(self.config)
        return {
            split: layout.scenes(split)
            if layout.split_file(split).is_file()
            else [f"scene{number:04d}_00" for number in range(count)]
            for split, count in SCANNET.items()
        }

    @cached_property
    def scene_shards(self) -> dict[str, list[str]]:
        """Scene shard -> its scenes."""
        size = self.config["data"]["scenes_per_shard"]
        found: dict[str, list[str]] = {}
        for split, scenes in self.scenes.items():
            found |= shards(split, scenes, size)
        return found

    @cached_property
    def runs(self) -> dict[str, Config]:
        """Run -> its resolved settings."""
        return {run: resolve_run(self.config, run) for run in self.config["runs"]}

    def needs(self, rule: str, usual: Mapping[str, int] = USUAL_NEEDS) -> dict[str, int]:
        """Return what a job of ``rule`` asks for on this cluster."""
        return {**usual, "nodes": 1, **self.cluster.needs.get(rule, {})}


def make_job(
    work: Workload,
    rule: str,
    name: str,
    seconds: float,
    after: Sequence[str] = (),
    usual: Mapping[str, int] = USUAL_NEEDS,
    **costs: float,
) -> Job:
    """Return the job: ``seconds`` of computing, or of reading and writing if that is longer."""
    needs = work.needs(rule, usual)
    moved = (costs.get("read", 0.0) + costs.get("written", 0.0)) / work.cluster.storage_rate
    start = figure("start of a job, CPU s") / work.cluster.core_speed + figure("queue, s a job")
    return Job(
        rule=rule,
        name=name,
        seconds=start + max(seconds, moved),
        after=tuple(after),
        nodes=needs["nodes"],
        cpus=needs["threads"],
        gpus=needs["gpu"],
        memory=needs["mem_mb"],
        runtime=needs["runtime"] * 60.0,
        **costs,
    )


def built(work: Workload, split: str) -> list[str]:
    """Return the names of the jobs that build the scenes of ``split``."""
    return [f"build_scenes/{shard}" for shard in work.scene_shards if shard.startswith(split)]


def extracted(work: Workload, teacher: str) -> list[str]:
    """Return the names of the jobs that extract the features of ``teacher``."""
    if teacher == "none":
        return []
    count = len(work.scenes["train"])
    size = work.config["teacher"]["scenes_per_shard"]
    return [f"extract_features/{teacher}/{number}" for number in range(-(-count // size))]
