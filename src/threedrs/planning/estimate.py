"""The plan of the whole workflow on a cluster: stages, wall time, disk, and the largest risk.

The rules follow each other here. In truth the jobs of different rules overlap, which saves some
minutes, while training takes more than nine tenths of the time.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from threedrs.config.load import Config, resolve_run
from threedrs.config.resources import TRAIN_NEEDS
from threedrs.errors import ConfigError
from threedrs.evaluation.aggregate import setting_groups
from threedrs.metrics.setting_difference import (
    FEWEST_SEEDS,
    LEVEL,
    detectable,
    fewest_rooms,
    seeds_needed,
)
from threedrs.planning.cluster import HOUR, Cluster, Step
from threedrs.planning.disk import GIGABYTE, channels_of, checkpoint_bytes
from threedrs.planning.stage_costs import figure
from threedrs.planning.training import PAPER_SAMPLES, Machine, Plan, plan_run
from threedrs.planning.workflow_steps import Workload, workflow_steps
from threedrs.tasks.registry import headline_columns

NEAR = 0.8  # share of a limit from which on a warning is due
POINTS = (10, 5, 2)  # differences whose seeds are told


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The jobs of one target, the GB that stay, checkpoints too, and the hours of wall time."""

    stage: str
    jobs: int
    gpu_hours: float
    disk: float
    hours: float


@dataclass(frozen=True, kw_only=True)
class Risk:
    """Something that may go wrong: ``share`` of its limit (or of the wall time) that is used up."""

    share: float
    text: str
    remedy: str
    stops: bool = False  # whether a run ends where the whole limit is used up

    @property
    def is_near(self) -> bool:
        """Whether so much of the limit is used up that it is worth a warning."""
        return self.share >= NEAR


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A whole run on a cluster."""

    stages: Sequence[Stage]  # in the order of the workflow
    hours: float  # wall time
    disk_peak: float  # most GB of results at a time, where checkpoints stay
    disk_peak_pruned: float  # the same where each run's checkpoints are removed once it is trained
    checkpoints: float  # GB of checkpoints that may be removed in the end
    # The largest first. Where no limit is near, the rule that takes longest stands before them, as
    # a wrong figure of it would cost most.
    risks: Sequence[Risk]


def estimate(work: Workload) -> Estimate:
    """Return the plan of ``work``.

    Raises:
        ConfigError: a run is not of size 7b, a job does not fit a node, or a setting is wrong.
    """
    for name, run in work.runs.items():
        if run["model"]["size"] != "7b":
            raise ConfigError(
                f"runs.{name}: model.size {run['model']['size']} has no measured figures; "
                "plan a run of size 7b, e.g. with --configfile config/paper.yaml"
            )
    cluster, plans = work.cluster, training_plans(work)
    steps = workflow_steps(work, plans)
    stages = _stages(steps, cluster)
    hours = sum(stage.hours for stage in stages)
    # Checkpoints decide what the disk holds at most. Each run keeps some, and a run that is being
    # trained has one more, as the oldest goes only when the next is complete.
    train = next(step for step in steps if step.rule == "train")
    kept = sum(step.kept for step in steps)
    largest = max(map(checkpoint_bytes, work.runs.values())) / GIGABYTE
    one_more = train.at_once(cluster) * largest
    peak = kept + one_more
    checkpoints = sum(train.checkpoints)
    pruned = peak - checkpoints + train.at_once(cluster) * max(train.checkpoints)
    storage_busy = sum(step.moved for step in steps) / cluster.storage_rate / HOUR / hours
    risks = [
        _time_risk(steps, cluster),
        Risk(
            share=peak / cluster.disk,
            text=f"disk: {peak / 1000:.2f} TB at most, {cluster.disk / 1000:g} TB free",
            remedy="remove each run's checkpoints once it is trained (then at most "
            f"{pruned / 1000:.2f} TB), or set execution.keep: 1",
            stops=True,
        ),
        Risk(
            share=storage_busy,
            text=f"shared storage: at {cluster.storage_rate:g} GB/s, busy for "
            f"{storage_busy:.0%} of the time",
            remedy="raise train.pack, whose samples share a read, or copy the stores to the nodes",
        ),
        *_memory_risks(plans, train, cluster),
    ]
    risks.sort(key=lambda risk: -risk.share)
    if not risks[0].is_near:
        longest = max(steps, key=lambda step: step.hours(cluster))
        share = longest.hours(cluster) / hours
        text = f"wall time: {longest.rule} takes {share:.0%} of it, so its figures decide"
        risks.insert(0, Risk(share=share, text=text, remedy="time a few of its jobs first"))
    return Estimate(
        stages=stages,
        hours=hours,
        disk_peak=peak,
        disk_peak_pruned=pruned,
        checkpoints=checkpoints,
        risks=risks,
    )


def _stages(steps: Sequence[Step], cluster: Cluster) -> list[Stage]:
    return [
        Stage(
            stage=name,
            jobs=sum(len(step.seconds) for step in members),
            gpu_hours=sum(step.gpu_hours for step in members),
            disk=sum(step.kept for step in members),
            hours=sum(step.hours(cluster) for step in members),
        )
        for name in dict.fromkeys(step.stage for step in steps)
        if (members := [step for step in steps if step.stage == name])
    ]


def training_plans(work: Workload) -> dict[str, Plan]:
    """Return run -> memory and time of its training on the GPUs that a job asks for.

    Samples a second grow with the number of GPUs, which is measured on four of them only.

    Raises:
        ConfigError: the batch does not fit this number of GPUs, or a setting is wrong.
    """
    needs = work.needs("train", TRAIN_NEEDS["7b"])
    machine = Machine(
        gpus=max(1, needs["gpu"] * needs["nodes"]),
        memory=work.cluster.gpu_memory * 1e9,
        peak=work.cluster.peak,
    )
    found: dict[str, Plan] = {}
    plans: dict[str, Plan] = {}
    for name, run in work.runs.items():
        channels = channels_of(run["teacher"]["name"])
        # Runs that differ in their seed have the same plan, which takes a second to make.
        key = repr((run["model"], run["train"] | {"seed": 0}, run["execution"], channels))
        if key not in found:
            mix = work.config["instructions"]["mixes"][run["train"]["mix"]]
            samples = mix.get("size") or PAPER_SAMPLES
            found[key] = plan_run(run, machine, teacher_channels=channels, samples=samples)
        plans[name] = found[key]
    return plans


def _time_risk(steps: Sequence[Step], cluster: Cluster) -> Risk:
    limits = {
        step.rule: min(step.needs["runtime"] / 60, cluster.time_limit or math.inf) for step in steps
    }
    share, step = max(
        ((max(step.seconds) / HOUR / limits[step.rule], step) for step in steps),
        key=lambda one: one[0],
    )
    limit = limits[step.rule]
    resumes = "; it saves before the limit and goes on" if step.rule == "train" else ""
    return Risk(
        share=share,
        text=f"time limit: {step.rule} runs {share * limit:.1f} h of {limit:.1f} h{resumes}",
        remedy=f"give it more GPUs, or more time (runtime of {step.rule}, the partition's limit)",
    )


def _memory_risks(plans: Mapping[str, Plan], train: Step, cluster: Cluster) -> Iterator[Risk]:
    run, plan = max(plans.items(), key=lambda item: item[1].least)
    yield Risk(
        share=plan.least / 1e9 / cluster.gpu_memory,
        text=f"GPU memory: training {run} takes at least {plan.least / 1e9:.0f} GB of "
        f"{cluster.gpu_memory:.0f} GB a GPU",
        remedy="use more GPUs, or config/deepspeed/zero3_offload.json",
        stops=True,
    )
    run, plan = max(plans.items(), key=lambda item: item[1].host_memory)
    if plan.host_memory:
        needed = plan.host_memory / 1e9
        asked = train.needs["mem_mb"] * train.needs["nodes"] / 1000
        yield Risk(
            share=needed / asked,
            text=f"host memory: training {run} keeps {needed:.0f} GB on its hosts, of {asked:.0f} "
            "GB asked for, and the times above leave out the work there",
            remedy="raise mem_mb or nodes of train, or do without offload",
            stops=True,
        )


def seeds_of_study(config: Config) -> str:
    """Return in a line how many seeds the configured runs have, and how many they need."""
    resolved = {run: resolve_run(config, run) for run in config["runs"]}
    # A checkpoint that is evaluated as it is cannot be trained with another seed.
    configs = {run: found for run, found in resolved.items() if "checkpoint" not in found}
    groups = setting_groups(list(configs), configs, config["report"]["baseline"])
    if len(groups) < 2:
        return "seeds: no two settings are trained, so that there is nothing to compare"
    deviation = figure("seeds, points of ScanRefer Acc@0.25")
    level = LEVEL / len(headline_columns(config["eval"]["benchmarks"])) / (len(groups) - 1)
    least = min(map(len, groups))
    trainings = f"{least} training{'s' * (least > 1)}"
    needed = [seeds_needed(points, deviation, level) for points in POINTS]
    return (
        f"seeds: {len(groups)} settings are planned, each with {trainings} or more. "
        f"A verdict takes {fewest_rooms(level)} evaluated rooms, and {FEWEST_SEEDS} trainings of "
        "each, which find differences from about "
        f"{detectable(deviation, FEWEST_SEEDS, level):.0f} points on ScanRefer on. "
        f"About {', '.join(map(str, POINTS))} points take {', '.join(map(str, needed))} seeds. "
        f"Seeds are taken to vary by {deviation} points, as a small student's do "
        "(benchmarks/RESULTS.md)"
    )
