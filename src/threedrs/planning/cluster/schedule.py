"""A simulated run: jobs wait for what they depend on and for room on a node.

List scheduling, as Slurm does without reservations: whenever something ends, waiting jobs are
looked through, the one with the longest chain of work behind it first, and each that fits starts on
the fullest nodes that hold it, so that whole nodes stay free. Where running jobs ask the shared
storage for more than it gives, they get equal parts of it and take longer. Cost: one pass over
waiting and running jobs for each job that ends.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from threedrs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job.

    Attributes:
        rule: of the Snakefile.
        name: unlike any other's.
        seconds: that it runs, with what it reads and writes, where nobody else does.
        after: names of the jobs whose results it needs.
        nodes, cpus, gpus, memory: nodes that it takes, and of each cores, GPUs, MB.
        read, written: GB from and to the shared storage.
        kept: GB that it leaves there.
        checkpoints: GB besides, which may be removed once it has ended.
        temporary: GB besides, which are gone when it has ended.
        runtime: seconds that it asks for.
    """

    rule: str
    name: str
    seconds: float
    after: tuple[str, ...] = ()
    nodes: int = 1
    cpus: int = 1
    gpus: int = 0
    memory: int = 3000
    read: float = 0.0
    written: float = 0.0
    kept: float = 0.0
    checkpoints: float = 0.0
    temporary: float = 0.0
    runtime: float = 4 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Span:
    """When a job ran, in seconds since the start."""

    job: Job
    start: float
    end: float


def chains(jobs: Sequence[Job]) -> dict[str, float]:
    """Return name -> seconds from a job's start to the end of the longest chain behind it.

    Raises:
        ValueError: jobs depend on each other in a circle.
    """
    followers: dict[str, list[str]] = defaultdict(list)
    waits = {job.name: len(set(job.after)) for job in jobs}
    for job in jobs:
        for name in set(job.after):
            followers[name].append(job.name)
    order = [name for name, count in waits.items() if count == 0]
    for name in order:
        for follower in followers[name]:
            waits[follower] -= 1
            if waits[follower] == 0:
                order.append(follower)
    if len(order) < len(jobs):
        raise ValueError("jobs depend on each other in a circle")
    seconds = {job.name: job.seconds for job in jobs}
    found: dict[str, float] = {}
    for name in reversed(order):
        behind = max((found[follower] for follower in followers[name]), default=0.0)
        found[name] = seconds[name] + behind
    return found


class _Nodes:
    """What is free on each node: GPUs, cores, MB."""

    def __init__(self, count: int, cpus: int, gpus: int, memory: int) -> None:
        self.free = [(gpus, cpus, memory)] * count

    def take(self, job: Job) -> tuple[int, ...] | None:
        """Return the nodes that the job now holds, or None if it does not fit."""
        asked = (job.gpus, job.cpus, job.memory)
        fitting = [
            node
            for node, free in enumerate(self.free)
            if all(need <= there for need, there in zip(asked, free, strict=True))
        ]
        if len(fitting) < job.nodes:
            return None
        # Jobs without GPUs take nodes whose GPUs are busy, and jobs with GPUs the fullest.
        taken = tuple(sorted(fitting, key=lambda node: (self.free[node], node))[: job.nodes])
        self._change(taken, job, -1)
        return taken

    def give_back(self, taken: Sequence[int], job: Job) -> None:
        """Free what the job held."""
        self._change(taken, job, 1)

    def _change(self, taken: Sequence[int], job: Job, sign: int) -> None:
        for node in taken:
            gpus, cpus, memory = self.free[node]
            self.free[node] = (
                gpus + sign * job.gpus,
                cpus + sign * job.cpus,
                memory + sign * job.memory,
            )


@dataclass
class _Running:
    """A job at work: since when, seconds of work left, the nodes that it holds."""

    job: Job
    start: float
    left: float
    taken: tuple[int, ...]


def _speeds(jobs: Sequence[Job], storage: float) -> list[float]:
    """Return the share of its own speed at which each job runs, as all read from one storage.

    Nobody is slowed who asks for less than an equal part of what the others leave.
    """
    rates = [(job.read + job.written) / job.seconds if job.seconds else 0.0 for job in jobs]
    speeds = [1.0] * len(jobs)
    left = storage
    order = sorted(range(len(jobs)), key=rates.__getitem__)
    for place, number in enumerate(order):
        got = min(rates[number], left / (len(jobs) - place))
        if rates[number] > 0:
            speeds[number] = got / rates[number]
        left -= got
    return speeds


def simulate(
    jobs: Sequence[Job],
    *,
    nodes: int,
    cpus: int,
    gpus: int,
    memory: int,
    at_once: int = 64,
    storage: float = math.inf,
) -> list[Span]:
    """Return when each job runs on ``nodes`` nodes of ``cpus`` cores, ``gpus`` GPUs, ``memory`` MB.

    ``at_once`` is the most jobs that run at a time, ``storage`` the GB a second of all together.

    Raises:
        ConfigError: a job fits no node, or asks for more nodes than there are.
    """
    for job in jobs:
        if job.cpus > cpus or job.gpus > gpus or job.memory > memory or job.nodes > nodes:
            raise ConfigError(
                f"cluster: {job.rule} asks for {job.nodes} x ({job.gpus} GPUs, {job.cpus} cores, "
                f"{job.memory} MB), there are {nodes} x ({gpus}, {cpus}, {memory} MB); set "
                f"needs.{job.rule} in the cluster file, e.g. {{gpu: {min(job.gpus, gpus)}, "
                f"threads: {min(job.cpus, cpus)}, mem_mb: {min(job.memory, memory)}}}"
            )
    by_name = {job.name: job for job in jobs}
    behind = chains(jobs)
    waits = {job.name: set(job.after) for job in jobs}
    followers: dict[str, list[str]] = defaultdict(list)
    for job in jobs:
        for name in waits[job.name]:
            followers[name].append(job.name)
    rank = {job.name: (-behind[job.name], number) for number, job in enumerate(jobs)}
    ready = sorted((name for name, left in waits.items() if not left), key=rank.__getitem__)
    room = _Nodes(nodes, cpus, gpus, memory)
    running: list[_Running] = []
    spans, now = [], 0.0
    while ready or running:
        held = []
        for name in ready:
            job = by_name[name]
            taken = room.take(job) if len(running) < at_once else None
            if taken is None:
                held.append(name)
            else:
                running.append(_Running(job, now, job.seconds, taken))
        ready = held
        speeds = _speeds([one.job for one in running], storage)
        step = min(one.left / speed for one, speed in zip(running, speeds, strict=True))
        now += step
        for one, speed in zip(running, speeds, strict=True):
            one.left -= step * speed
        ended = [one for one in running if one.left <= 1e-6]
        running = [one for one in running if one.left > 1e-6]
        for one in ended:
            room.give_back(one.taken, one.job)
            spans.append(Span(job=one.job, start=one.start, end=now))
            for follower in followers[one.job.name]:
                waits[follower].discard(one.job.name)
                if not waits[follower]:
                    ready.append(follower)
        ready.sort(key=rank.__getitem__)
    return spans
