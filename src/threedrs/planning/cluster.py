"""The jobs of the whole workflow on a given cluster, rule by rule, with what each rule costs.

Closed form: the jobs of a rule take rounds of as many as fit the cluster at a time. So a rule takes
rounds x the mean job, at least its longest job, and at least what it reads and writes over the rate
of the shared storage. Not counted are downloads, the demo data, and the evaluation while a run
trains.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from threedrs.config.load import Config, data_layout, resolve_run
from threedrs.config.resources import GPUS, PREDICT_NEEDS, TRAIN_NEEDS, USUAL_NEEDS
from threedrs.config.section import Section, problem_lines
from threedrs.config.value_types import NaturalInt, OneOf, PositiveFloat, PositiveInt
from threedrs.config.yaml_files import read_yaml
from threedrs.errors import ConfigError, choose_one
from threedrs.inputs.required_files import conversions, shards, trained_runs
from threedrs.planning.disk import GIGABYTE, PATCHES, channels_of, checkpoint_bytes, model_bytes
from threedrs.planning.stage_costs import (
    MEASURED_FRAMES,
    MEASURED_PEAK,
    QUESTIONS,
    SCANNET,
    figure,
)
from threedrs.planning.training import PAPER_SAMPLES, Machine, Plan, plan_run
from threedrs.tasks.registry import find_task
from threedrs.teachers.known_teachers import get_teacher

HOUR = 3600.0


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
        ConfigError: the file cannot be read or is not YAML, or a key is unknown, missing, or out of
            range; a line names the file and the key.
    """
    try:
        return Cluster.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = problem_lines(error, Cluster)
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from None


@dataclass(frozen=True, kw_only=True)
class Step:
    """The jobs of one rule."""

    stage: str  # one of `STAGES`
    rule: str
    seconds: Sequence[float]  # time of each job
    needs: Mapping[str, int]  # what each asks for: gpu, threads, mem_mb, runtime in minutes, nodes
    moved: float = 0.0  # GB that all read and write
    kept: float = 0.0  # GB that stay
    checkpoints: float = 0.0  # GB besides, which may be removed once a run is trained
    temporary: float = 0.0  # GB besides, of one job while it runs

    @property
    def gpu_hours(self) -> float:
        """Hours that the jobs hold GPUs, times their number."""
        return sum(self.seconds) * self.needs["gpu"] * self.needs["nodes"] / HOUR

    def at_once(self, cluster: Cluster) -> int:
        """Return how many of the jobs run at a time.

        Raises:
            ConfigError: a job does not fit a node, or asks for more nodes than there are.
        """
        asked = [self.needs[name] for name in ("gpu", "threads", "mem_mb")]
        memory = int(cluster.memory_per_node * 1000)
        there = [cluster.gpus_per_node, cluster.cpus_per_node, memory]
        on_a_node = min(has // need for need, has in zip(asked, there, strict=True) if need)
        most = min(on_a_node * cluster.nodes // self.needs["nodes"], cluster.jobs)
        if not on_a_node or self.needs["nodes"] > cluster.nodes:
            gpu, threads, mem_mb = map(min, asked, there)
            raise ConfigError(
                f"cluster: {self.rule} asks for {self.needs['nodes']} x ({asked[0]} GPUs, "
                f"{asked[1]} cores, {asked[2]} MB), there are {cluster.nodes} x ({there[0]}, "
                f"{there[1]}, {there[2]} MB); set needs.{self.rule} in the cluster file, e.g. "
                f"{{gpu: {gpu}, threads: {threads}, mem_mb: {mem_mb}}}"
            )
        return min(most, len(self.seconds))

    def hours(self, cluster: Cluster) -> float:
        """Return the hours from the first job's start to the last job's end."""
        rounds = math.ceil(len(self.seconds) / self.at_once(cluster))
        mean = sum(self.seconds) / len(self.seconds)
        return max(rounds * mean, max(self.seconds), self.moved / cluster.storage_rate) / HOUR


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A configuration and the cluster that it runs on."""

    config: Config  # the checked configuration, of size 7b
    cluster: Cluster

    @cached_property
    def frames(self) -> float:
        """The number of frames of a scene over that of the measurements."""
        return self.config["frames"]["count"] / MEASURED_FRAMES

    @cached_property
    def scenes(self) -> dict[str, Sequence[str]]:
        """Split -> its scenes: those of the data, or as many as ScanNet's."""
        layout = data_layout(self.config)
        return {
            split: layout.scenes(split) if layout.has_scenes(split) else [""] * count
            for split, count in SCANNET.items()
        }

    @cached_property
    def runs(self) -> dict[str, Config]:
        """Run -> its resolved settings, of the runs that are trained."""
        return {run: resolve_run(self.config, run) for run in trained_runs(self.config)}

    @cached_property
    def teachers(self) -> dict[str, str]:
        """Run -> its teacher."""
        return {name: run["teacher"]["name"] for name, run in self.runs.items()}

    def shard_sizes(self, split: str, section: str) -> list[int]:
        """Return the number of scenes of each shard of ``data`` or ``teacher``."""
        size = self.config[section]["scenes_per_shard"]
        return [len(scenes) for scenes in shards(split, self.scenes[split], size).values()]

    def needs(self, rule: str, usual: Mapping[str, int] = USUAL_NEEDS) -> dict[str, int]:
        """Return what a job of ``rule`` asks for on this cluster."""
        own = self.cluster.needs.get(rule, Needs()).model_dump(exclude_none=True)
        return {**usual, "nodes": 1, **own}

    def step(
        self,
        stage: str,
        rule: str,
        seconds: Sequence[float],
        usual: Mapping[str, int] = USUAL_NEEDS,
        **gigabytes: float,
    ) -> Step:
        """Return the jobs of ``rule`` that compute for ``seconds``, each after its start."""
        start = figure("start of a job, CPU s") / self.cluster.core_speed + figure("queue, s a job")
        return Step(
            stage=stage,
            rule=rule,
            seconds=[start + one for one in seconds],
            needs=self.needs(rule, usual),
            **gigabytes,
        )


def workflow_steps(work: Workload, plans: Mapping[str, Plan]) -> list[Step]:
    """Return the jobs of the target ``all`` on ScanNet, rule by rule.

    Raises:
        ConfigError: the cluster's needs name an unknown rule.
    """
    steps = [*_scene_steps(work), *_feature_steps(work), *_instruction_steps(work)]
    steps += [*_run_steps(work, plans)]
    rules = {step.rule: None for step in steps}
    for rule in work.cluster.needs:
        if rule not in rules:
            raise ConfigError(f"cluster: needs.{rule} is not a rule; {choose_one(rule, rules)}")
    return steps


def _scene_steps(work: Workload) -> Iterator[Step]:
    core, splits = work.cluster.core_speed, len(work.scenes)
    sizes = [size for split in work.scenes for size in work.shard_sizes(split, "data")]
    count = sum(sizes)
    if data_layout(work.config).candidates is not None:
        seconds = [figure("candidates, s a split") / core] * splits
        yield work.step("scenes", "candidates", seconds, USUAL_NEEDS | {"mem_mb": 16000})
    stores = count * figure("scene store, GB") * work.frames
    meshes = count * figure("mesh, annotation and proposals, GB")
    for rule, name, factor, moved in (
        ("boxes", "boxes", 1.0, meshes),
        ("build_scenes", "scene store", work.frames, count * figure("scan, GB") + stores),
        ("scene_facts", "facts", 1.0, stores),
    ):
        seconds = [size * figure(f"{name}, s a scene") * factor / core for size in sizes]
        kept = stores if rule == "build_scenes" else 0.0
        yield work.step("scenes", rule, seconds, moved=moved, kept=kept)
    yield work.step("scenes", "check_scenes", [1.0] * splits)
    yield work.step("scenes", "check_limit", [1.0] * splits)
    yield work.step("scenes", "scene_report", [figure("reports, s a run") / core])


def _feature_steps(work: Workload) -> Iterator[Step]:
    grid = PATCHES[work.config["teacher"]["grid"]] / PATCHES[14]
    sizes = work.shard_sizes("train", "teacher")
    for teacher in sorted(set(work.teachers.values()) - {"none"}):
        scene = figure("VGGT, s a scene" if teacher == "vggt" else "another teacher, s a scene")
        on_gpu = get_teacher(teacher).needs["gpu"]
        speed = work.cluster.peak / MEASURED_PEAK if on_gpu else work.cluster.core_speed
        features = sum(sizes) * figure("features, GB a scene") * channels_of(teacher) / 2048
        features *= grid * work.frames
        yield work.step(
            "features",
            "extract_features",
            [(figure("VGGT, s to start") + size * scene * work.frames) / speed for size in sizes],
            get_teacher(teacher).needs,
            moved=sum(sizes) * figure("scene store, GB") * work.frames + features,
            kept=features,
        )


def _instruction_steps(work: Workload) -> Iterator[Step]:
    for rule, name, count in (
        ("convert_instructions", "conversion", len(conversions(work.config))),
        ("balance", "mix", len(work.config["instructions"]["mixes"])),
    ):
        seconds = figure(f"{name}, s of 223,128 records") / work.cluster.core_speed
        yield work.step("instructions", rule, [seconds] * count)


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
        channels = channels_of(work.teachers[name])
        # Runs that differ in their seed have the same plan, which takes a second to make.
        key = repr((run["model"], run["train"] | {"seed": 0}, run["execution"], channels))
        if key not in found:
            mix = work.config["instructions"]["mixes"][run["train"]["mix"]]
            samples = mix.get("size") or PAPER_SAMPLES
            found[key] = plan_run(run, machine, teacher_channels=channels, samples=samples)
        plans[name] = found[key]
    return plans


def _run_steps(work: Workload, plans: Mapping[str, Plan]) -> Iterator[Step]:
    core, asked = work.cluster.core_speed, work.config["eval"]
    told = [name for name in asked["benchmarks"] if not find_task(name).grounding]
    benchmarks = [*asked["benchmarks"], *told * len(asked["controls"])]
    yield work.step("models", "run_config", [0.0] * len(work.runs))
    yield _training(work, plans)
    predictions = [_prediction(work, benchmark) for benchmark in benchmarks] * len(work.runs)
    yield work.step(
        "scores",
        "predict",
        [seconds for seconds, _ in predictions],
        PREDICT_NEEDS["7b"],
        moved=sum(read for _, read in predictions),
    )
    scoring = figure("scoring, s of all five benchmarks") / 5
    with_meteor = ["meteor" in find_task(name).metrics for name in benchmarks]
    seconds = [scoring + figure("METEOR, s a benchmark") * slow for slow in with_meteor]
    yield work.step("scores", "score", [one / core for one in seconds] * len(work.runs))
    yield work.step("report", "trivial_answers", [figure("answers without looking, s") / core])
    for rule in ("aggregate", "build_report"):
        yield work.step("report", rule, [len(work.runs) * figure("reports, s a run") / core])


def _training(work: Workload, plans: Mapping[str, Plan]) -> Step:
    rate, model = work.cluster.storage_rate, figure("model, GB")
    seconds, moved, kept, checkpoints, largest = [], 0.0, 0.0, 0.0, 0.0
    for name, plan in plans.items():
        run, teacher = work.runs[name]["train"], work.teachers[name]
        execution = work.runs[name]["execution"]
        steps = run["epochs"] * plan.steps_an_epoch
        steps = min(steps, run["max_steps"] or steps)
        saves = math.ceil(steps / execution["save_every"])  # the last step saves, too
        checkpoint = checkpoint_bytes(work.runs[name]) / GIGABYTE
        exported = model_bytes(work.runs[name]) / GIGABYTE
        pack = figure("pixels of a sample, GB")
        pack += figure("features, GB a scene") * channels_of(teacher) / 2048
        reading = steps * run["global_batch"] / run["pack"] * pack * work.frames
        # Training stops for its checkpoints, which are written and read once more for their
        # checksums. It reads its samples while it computes.
        stops = model + exported + 2 * saves * checkpoint
        computing = max(plan.seconds_a_step * steps, reading / rate)
        seconds.append(figure("start of training, s") + stops / rate + computing)
        moved += reading + stops
        kept += exported
        checkpoints += min(saves, execution["keep"]) * checkpoint
        largest = max(largest, checkpoint)
    return work.step(
        "models",
        "train",
        seconds,
        TRAIN_NEEDS["7b"],
        moved=moved,
        kept=kept,
        checkpoints=checkpoints,
        temporary=largest,  # the oldest checkpoint goes when the next is complete
    )


def _prediction(work: Workload, benchmark: str) -> tuple[float, float]:
    """Return the seconds of a job that answers a benchmark, and the GB that it reads."""
    task = find_task(benchmark)
    size = task.published_sizes.get(task.evaluation_split)
    questions, scenes = (size.records, size.scenes) if size and size.scenes else QUESTIONS
    # Grounding is answered by scores of boxes, no token is generated.
    tokens = 0.0 if task.grounding else figure("answer tokens of the slowest question")
    tokens = min(tokens, work.config["eval"]["max_new_tokens"])
    seconds = scenes * figure("prediction, s of a scene's prefix") * work.frames
    seconds += questions * figure("prediction, s a question")
    seconds += scenes * tokens * figure("prediction, s a token step")
    # Each GPU has a copy of the model and a share of the scenes.
    gpus = max(1, work.needs("predict", PREDICT_NEEDS["7b"])["gpu"])
    speed = gpus * work.cluster.peak / MEASURED_PEAK
    model = figure("model, GB")
    seconds = seconds / speed + figure("start of prediction, s") + model / work.cluster.storage_rate
    return seconds, model + scenes * figure("pixels of a sample, GB") * work.frames
