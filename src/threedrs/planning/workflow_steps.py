"""The jobs of the whole workflow on a cluster, rule by rule, with what each rule costs.

Not counted are downloads, the demo data, and the evaluation while a run trains.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from threedrs.config.load import Config, data_layout, resolve_run
from threedrs.config.resources import PREDICT_NEEDS, TRAIN_NEEDS, USUAL_NEEDS
from threedrs.errors import ConfigError, choose_one
from threedrs.inputs.required_files import conversions, shards, trained_runs
from threedrs.planning.cluster import Cluster, Needs, Step
from threedrs.planning.disk import GIGABYTE, PATCHES, channels_of, checkpoint_bytes, model_bytes
from threedrs.planning.stage_costs import MEASURED_FRAMES, MEASURED_PEAK, QUESTIONS, SCANNET, figure
from threedrs.planning.training import Plan
from threedrs.tasks.registry import find_task
from threedrs.teachers.known_teachers import get_teacher


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
        *,
        speed: float | None = None,
        moved: float = 0.0,
        kept: float = 0.0,
    ) -> Step:
        """Return the jobs of ``rule``, each of which takes ``seconds`` / ``speed`` after its start.

        Without a speed they run on the cluster's cores.
        """
        core = self.cluster.core_speed
        start = figure("start of a job, CPU s") / core + figure("queue, s a job")
        return Step(
            stage=stage,
            rule=rule,
            seconds=[start + one / (speed or core) for one in seconds],
            needs=self.needs(rule, usual),
            moved=moved,
            kept=kept,
        )


def workflow_steps(work: Workload, plans: Mapping[str, Plan]) -> list[Step]:
    """Return the jobs of the target ``all`` on ScanNet, rule by rule.

    Raises:
        ConfigError: the cluster's needs name an unknown rule.
    """
    steps = [*_scene_steps(work), *_feature_steps(work), *_run_steps(work, plans)]
    rules = {step.rule: None for step in steps}
    for rule in work.cluster.needs:
        if rule not in rules:
            raise ConfigError(f"cluster: needs.{rule} is not a rule; {choose_one(rule, rules)}")
    return steps


def _scene_steps(work: Workload) -> Iterator[Step]:
    splits = len(work.scenes)
    sizes = [size for split in work.scenes for size in work.shard_sizes(split, "data")]
    if data_layout(work.config).candidates is not None:
        seconds = [figure("candidates, s a split")] * splits
        yield work.step("scenes", "candidates", seconds, USUAL_NEEDS | {"mem_mb": 16000})
    stores = sum(sizes) * figure("scene store, GB") * work.frames
    meshes = sum(sizes) * figure("mesh, annotation and proposals, GB")
    scans = sum(sizes) * figure("scan, GB")
    seconds = [size * figure("boxes, s a scene") for size in sizes]
    yield work.step("scenes", "boxes", seconds, moved=meshes)
    seconds = [size * figure("scene store, s a scene") * work.frames for size in sizes]
    yield work.step("scenes", "build_scenes", seconds, moved=scans + stores, kept=stores)
    seconds = [size * figure("facts, s a scene") for size in sizes]
    yield work.step("scenes", "scene_facts", seconds, moved=stores)
    for rule in ("check_scenes", "check_limit"):
        yield work.step("scenes", rule, [1.0] * splits)
    yield work.step("scenes", "scene_report", [figure("reports, s a run")])


def _feature_steps(work: Workload) -> Iterator[Step]:
    grid = PATCHES[work.config["teacher"]["grid"]] / PATCHES[14]
    sizes = work.shard_sizes("train", "teacher")
    teachers = {run["teacher"]["name"] for run in work.runs.values()}
    for name in sorted(teachers - {"none"}):
        scene = figure("VGGT, s a scene" if name == "vggt" else "another teacher, s a scene")
        needs = get_teacher(name).needs
        speed = work.cluster.peak / MEASURED_PEAK if needs["gpu"] else work.cluster.core_speed
        features = sum(sizes) * figure("features, GB a scene") * channels_of(name) / 2048
        features *= grid * work.frames
        yield work.step(
            "features",
            "extract_features",
            [figure("VGGT, s to start") + size * scene * work.frames for size in sizes],
            needs,
            speed=speed,
            moved=sum(sizes) * figure("scene store, GB") * work.frames + features,
            kept=features,
        )


def _run_steps(work: Workload, plans: Mapping[str, Plan]) -> Iterator[Step]:
    config, runs = work.config, len(work.runs)
    for rule, name, count in (
        ("convert_instructions", "conversion", len(conversions(config))),
        ("balance", "mix", len(config["instructions"]["mixes"])),
    ):
        seconds = [figure(f"{name}, s of 223,128 records")] * count
        yield work.step("instructions", rule, seconds)
    yield work.step("models", "run_config", [0.0] * runs)
    yield _training(work, plans)
    asked = config["eval"]["benchmarks"]
    told = [name for name in asked if not find_task(name).grounding]
    # A control asks a run once more what it answers in words.
    benchmarks = [*asked, *told * len(config["eval"]["controls"])]
    predictions = [_prediction(work, benchmark) for benchmark in benchmarks] * runs
    yield work.step(
        "scores",
        "predict",
        [seconds for seconds, _ in predictions],
        PREDICT_NEEDS["7b"],
        speed=1.0,
        moved=sum(read for _, read in predictions),
    )
    scoring = figure("scoring, s of all five benchmarks") / 5
    meteor = figure("METEOR, s a benchmark")
    seconds = [scoring + meteor * ("meteor" in find_task(name).metrics) for name in benchmarks]
    yield work.step("scores", "score", seconds * runs)
    yield work.step("report", "trivial_answers", [figure("answers without looking, s")])
    for rule in ("aggregate", "build_report"):
        yield work.step("report", rule, [runs * figure("reports, s a run")])


def _training(work: Workload, plans: Mapping[str, Plan]) -> Step:
    rate = work.cluster.storage_rate
    seconds, checkpoints, moved, kept = [], [], 0.0, 0.0
    for name, plan in plans.items():
        run, execution = work.runs[name], work.runs[name]["execution"]
        steps = run["train"]["epochs"] * plan.steps_an_epoch
        steps = min(steps, run["train"]["max_steps"] or steps)
        saves = math.ceil(steps / execution["save_every"])  # the last step saves, too
        checkpoint, exported = checkpoint_bytes(run) / GIGABYTE, model_bytes(run) / GIGABYTE
        pack = figure("features, GB a scene") * channels_of(run["teacher"]["name"]) / 2048
        pack = (pack + figure("pixels of a sample, GB")) * work.frames
        reading = steps * run["train"]["global_batch"] / run["train"]["pack"] * pack
        # Training stops for its checkpoints, which are written and read once more for their
        # checksums. It reads its samples while it computes.
        stops = figure("model, GB") + exported + 2 * saves * checkpoint
        computing = max(plan.seconds_a_step * steps, reading / rate)
        seconds.append(figure("start of training, s") + stops / rate + computing)
        moved += reading + stops
        kept += exported
        checkpoints.append(min(saves, execution["keep"]) * checkpoint)
    kept += sum(checkpoints)
    needs = TRAIN_NEEDS["7b"]
    step = work.step("models", "train", seconds, needs, speed=1.0, moved=moved, kept=kept)
    return replace(step, checkpoints=checkpoints)


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
    model = figure("model, GB")
    loading = figure("start of prediction, s") + model / work.cluster.storage_rate
    seconds = loading + seconds * MEASURED_PEAK / (gpus * work.cluster.peak)
    return seconds, model + scenes * figure("pixels of a sample, GB") * work.frames
