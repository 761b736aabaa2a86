"""The plan: stage by stage what a simulated run takes, and the largest single risk in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from threedrs.planning.cluster.jobs import check_figures, workflow_jobs
from threedrs.planning.cluster.runs import training_plans
from threedrs.planning.cluster.schedule import Span, simulate
from threedrs.planning.cluster.settings import Cluster
from threedrs.planning.cluster.workload import RULES, Workload
from threedrs.planning.training import Plan

HOUR = 3600.0
NEAR = 0.8  # of a limit: worth a warning


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One rule's jobs together; hours of cores and GPUs, GB, and when they run (hours)."""

    rule: str
    jobs: int
    core_hours: float
    gpu_hours: float
    read: float
    written: float
    kept: float
    checkpoints: float
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Risk:
    """Something that may go wrong: ``share`` of its limit (or of the wall time) that is used up."""

    share: float
    text: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A whole run on a cluster.

    Attributes:
        stages: in the order of the workflow.
        hours: wall time.
        storage_busy: share of the wall time that reading and writing takes at the full rate.
        disk_peak: most GB of results at a time; checkpoints stay.
        disk_peak_pruned: GB at most, if each run's checkpoints are removed when it is trained.
        gpus_busy: share of all GPUs' time.
        risks: the largest first; where no limit is near, before them the stage that takes longest.
    """

    stages: Sequence[Stage]
    hours: float
    storage_busy: float
    disk_peak: float
    disk_peak_pruned: float
    gpus_busy: float
    risks: Sequence[Risk]


def estimate(work: Workload) -> Estimate:
    """Return the plan of ``work``.

    Raises:
        ConfigError: a job fits no node of the cluster, or a setting is wrong.
    """
    check_figures(work)
    cluster, plans = work.cluster, training_plans(work)
    spans = simulate(
        workflow_jobs(work, plans),
        nodes=cluster.nodes,
        cpus=cluster.cpus_per_node,
        gpus=cluster.gpus_per_node,
        memory=int(cluster.memory_per_node * 1000),
        at_once=cluster.jobs,
        storage=cluster.storage_rate,
    )
    stages = stages_of(spans)
    hours = max(span.end for span in spans) / HOUR
    busy = sum(stage.gpu_hours for stage in stages)
    moved = sum(stage.read + stage.written for stage in stages)
    there = hours * cluster.nodes * cluster.gpus_per_node
    found = Estimate(
        stages=stages,
        hours=hours,
        storage_busy=moved / cluster.storage_rate / HOUR / hours,
        disk_peak=disk_peak(spans, pruned=False),
        disk_peak_pruned=disk_peak(spans, pruned=True),
        gpus_busy=busy / there if there else 0.0,
        risks=(),
    )
    risks = sorted(_risks(cluster, plans, spans, found), key=lambda risk: -risk.share)
    if risks[0].share < NEAR:  # a wrong figure of what takes longest would then cost most
        risks.insert(0, _longest_stage(found))
    return Estimate(**{**vars(found), "risks": tuple(risks)})


def stages_of(spans: Sequence[Span]) -> list[Stage]:
    """Return the sums over each rule's jobs."""

    def place(span: Span) -> int:
        return RULES.index(span.job.rule)

    stages = []
    for _, group in groupby(sorted(spans, key=place), key=place):
        members = list(group)
        jobs = [span.job for span in members]
        stages.append(
            Stage(
                rule=jobs[0].rule,
                jobs=len(jobs),
                core_hours=sum(job.seconds * job.cpus * job.nodes for job in jobs) / HOUR,
                gpu_hours=sum(job.seconds * job.gpus * job.nodes for job in jobs) / HOUR,
                read=sum(job.read for job in jobs),
                written=sum(job.written for job in jobs),
                kept=sum(job.kept for job in jobs),
                checkpoints=sum(job.checkpoints for job in jobs),
                start=min(span.start for span in members) / HOUR,
                end=max(span.end for span in members) / HOUR,
            )
        )
    return stages


def disk_peak(spans: Sequence[Span], *, pruned: bool) -> float:
    """Return the most GB of results at a time; ``pruned``: checkpoints go when their job ends."""
    changes: list[tuple[float, float]] = []
    for span in spans:
        job = span.job
        changes.append((span.start, job.kept + job.checkpoints + job.temporary))
        changes.append((span.end, -job.temporary - pruned * job.checkpoints))
    return _highest(changes)


def _highest(changes: Sequence[tuple[float, float]]) -> float:
    """Return the highest running sum; at one time, what ends counts before what starts."""
    total = most = 0.0
    for _, change in sorted(changes):
        total += change
        most = max(most, total)
    return most


def _risks(
    cluster: Cluster, plans: Mapping[str, Plan], spans: Sequence[Span], found: Estimate
) -> list[Risk]:
    limit = math.inf if cluster.time_limit is None else cluster.time_limit * HOUR

    def share_of_limit(span: Span) -> float:
        return (span.end - span.start) / min(span.job.runtime, limit)

    longest = max(spans, key=share_of_limit)
    rule, taken = longest.job.rule, (longest.end - longest.start) / HOUR
    allowed = min(longest.job.runtime, limit) / HOUR
    resumes = "; it saves before the limit and goes on" if rule == "train" else ""
    run, plan = max(plans.items(), key=lambda item: item[1].total)
    return [
        *_offload_risk(plans, spans),
        Risk(
            share=share_of_limit(longest),
            text=f"time limit: {longest.job.name} runs {taken:.1f} h of {allowed:.1f} h{resumes}",
            remedy=f"give it more GPUs, or more time (runtime of {rule}, the partition's limit)",
        ),
        Risk(
            share=found.disk_peak / cluster.disk,
            text=f"disk: {found.disk_peak / 1000:.2f} TB at most, {cluster.disk / 1000:g} TB free",
            remedy="remove each run's checkpoints once it is trained (then at most "
            f"{found.disk_peak_pruned / 1000:.2f} TB), or set train.keep: 1",
        ),
        Risk(
            share=found.storage_busy,
            text=f"shared storage: at {cluster.storage_rate:g} GB/s, busy for "
            f"{found.storage_busy:.0%} of the time",
            remedy="raise train.pack, whose samples share a read, or copy the stores to the nodes",
        ),
        Risk(
            share=plan.total / 1e9 / cluster.gpu_memory,
            text=f"GPU memory: training {run} takes {plan.total / 1e9:.0f} GB of "
            f"{cluster.gpu_memory:.0f} GB a GPU",
            remedy="use more GPUs, or config/deepspeed/zero3_offload.json",
        ),
    ]


def _offload_risk(plans: Mapping[str, Plan], spans: Sequence[Span]) -> list[Risk]:
    """Return what training keeps on the hosts as a risk, if it keeps anything there."""
    run, plan = max(plans.items(), key=lambda item: item[1].host_memory)
    if not plan.host_memory:
        return []
    job = next(span.job for span in spans if span.job.name == f"train/{run}")
    needed, asked = plan.host_memory / 1e9, job.memory * job.nodes / 1000
    return [
        Risk(
            share=needed / asked,
            text=f"host memory: training {run} keeps {needed:.0f} GB on its hosts, of {asked:.0f} "
            "GB asked for, and the times above leave out the work there",
            remedy="raise mem_mb or nodes of train, or do without offload",
        )
    ]


def _longest_stage(found: Estimate) -> Risk:
    stage = max(found.stages, key=lambda stage: stage.end - stage.start)
    share = (stage.end - stage.start) / found.hours
    text = f"wall time: {stage.rule} takes {share:.0%} of it, so its figures decide"
    return Risk(share=share, text=text, remedy="time a few of its jobs first")
