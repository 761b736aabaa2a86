"""The jobs of each run: training, prediction, scores; and of the report over all runs.

Training follows from its operations and the measured utilisation (`threedrs.planning.training`):
samples a second grow with the number of GPUs, which is measured on four of them only. It stops for
its checkpoints and reads while it computes. A prediction shares its scenes out to its GPUs.
"""

from collections.abc import Iterator, Mapping

from threedrs.config.load import Config
from threedrs.config.resources import PREDICT_NEEDS, TRAIN_NEEDS
from threedrs.instructions import EVALUATION_SPLITS
from threedrs.planning.cluster.figures import (
    GROUNDING,
    MEASURED_PEAK,
    QUESTIONS,
    SAMPLES,
    WITH_METEOR,
    figure,
)
from threedrs.planning.cluster.schedule import Job
from threedrs.planning.cluster.workload import Workload, built, extracted, make_job
from threedrs.planning.disk import GIGABYTE, channels_of, checkpoint_bytes, model_bytes
from threedrs.planning.training import Machine, Plan, plan_run


def samples_of(config: Config, mix: str) -> int:
    """Return the samples of an epoch of this mix: its size where it says one, else the paper's."""
    return config["instructions"]["mixes"][mix].get("size") or SAMPLES


def training_plans(work: Workload) -> dict[str, Plan]:
    """Return run -> memory and time of its training on the GPUs that a job asks for.

    Raises:
        ConfigError: the batch does not fit this number of GPUs, or a setting is wrong.
    """
    needs = work.needs("train", TRAIN_NEEDS["7b"])
    found: dict[str, Plan] = {}
    plans: dict[str, Plan] = {}
    for name, run in work.runs.items():
        train = {key: value for key, value in run["train"].items() if key != "seed"}
        channels = channels_of(work.teachers[name])
        key = repr((run["model"], train, channels))
        if key not in found:
            machine = Machine(
                gpus=max(1, needs["gpu"] * needs["nodes"]),
                memory=work.cluster.gpu_memory * 1e9,
                peak=work.cluster.peak,
            )
            samples = samples_of(work.config, run["train"]["mix"])
            found[key] = plan_run(run, machine, teacher_channels=channels, samples=samples)
        plans[name] = found[key]
    return plans


def run_jobs(work: Workload, plans: Mapping[str, Plan]) -> Iterator[Job]:
    """Yield the jobs of all runs and those of the report."""
    core = work.cluster.core_speed
    benchmarks = work.config["eval"]["benchmarks"]
    for name in work.runs:
        yield Job(rule="run_config", name=f"run_config/{name}", seconds=0, cpus=0, memory=0)
        yield _training(work, name, plans[name])
        for benchmark in benchmarks:
            yield _prediction(work, name, benchmark)
            seconds = figure("scoring, s of all five benchmarks") / 5
            seconds += figure("METEOR, s a benchmark") * (benchmark in WITH_METEOR)
            after = [f"predict/{name}/{benchmark}"]
            yield make_job(work, "score", f"score/{name}/{benchmark}", seconds / core, after)
    seconds = len(work.runs) * figure("reports, s a run") / core
    scores = [f"score/{name}/{benchmark}" for name in work.runs for benchmark in benchmarks]
    yield make_job(work, "aggregate", "aggregate", seconds, scores)
    yield make_job(work, "build_report", "build_report", seconds, ["aggregate"])


def _training(work: Workload, name: str, plan: Plan) -> Job:
    run, rate = work.runs[name]["train"], work.cluster.storage_rate
    teacher = work.teachers[name]
    steps = run["epochs"] * plan.steps_an_epoch
    steps = min(steps, run["max_steps"] or steps)
    computing = plan.seconds_a_step * steps
    saves = -(-steps // run["save_every"])  # the last step saves, too
    checkpoint, model = checkpoint_bytes(work.runs[name]) / GIGABYTE, figure("model, GB")
    exported = model_bytes(work.runs[name]) / GIGABYTE
    # Written, and read once more for the checksums.
    saving = 2 * saves * checkpoint
    pack = figure("pixels of a sample, GB")
    if teacher != "none":
        pack += figure("features, GB a scene") * channels_of(teacher) / 2048
    reading = steps * run["global_batch"] / run["pack"] * pack * work.frames
    stops = figure("start of training, s") + (model + exported + saving) / rate
    return make_job(
        work,
        "train",
        f"train/{name}",
        stops + max(computing, reading / rate),
        [
            f"run_config/{name}",
            f"balance/{run['mix']}",
            *built(work, "train"),
            *extracted(work, teacher),
        ],
        TRAIN_NEEDS["7b"],
        read=reading + model + saving / 2,
        written=saving / 2 + exported,
        kept=exported,
        checkpoints=min(saves, run["keep"]) * checkpoint,
        # The oldest goes when the next is complete.
        temporary=checkpoint,
    )


def _prediction(work: Workload, name: str, benchmark: str) -> Job:
    questions, scenes = QUESTIONS[benchmark]
    speed = work.cluster.peak / MEASURED_PEAK
    tokens = 0.0 if benchmark in GROUNDING else figure("answer tokens of the slowest question")
    tokens = min(tokens, work.config["eval"]["max_new_tokens"])
    seconds = scenes * figure("prediction, s of a scene's prefix") * work.frames
    seconds += questions * figure("prediction, s a question")
    seconds += scenes * tokens * figure("prediction, s a token step")
    # Each GPU has a copy of the model and a share of the scenes.
    seconds /= max(1, work.needs("predict", PREDICT_NEEDS["7b"])["gpu"])
    model = figure("model, GB")
    read = model + scenes * figure("pixels of a sample, GB") * work.frames
    return make_job(
        work,
        "predict",
        f"predict/{name}/{benchmark}",
        figure("start of prediction, s") + model / work.cluster.storage_rate + seconds / speed,
        [
            f"train/{name}",
            f"convert_instructions/{benchmark}_{EVALUATION_SPLITS[benchmark]}",
            *built(work, "val"),
            "check_scenes/val",
        ],
        PREDICT_NEEDS["7b"],
        read=read,
    )
