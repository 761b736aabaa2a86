"""``threedrs eval``, ``score``, ``awareness``, ``model``: a model's scores, and its files."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from threedrs.cli import names, shared
from threedrs.errors import ConfigError, counted, did_you_mean
from threedrs.workflow.processes import quick_imports

model_app = typer.Typer(help="Work on a trained model's files.", no_args_is_help=True)


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A trained run, a model folder, or initial: the model before any training.",
            autocompletion=names.completion(names.RUNS.names),
        ),
    ],
    on: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks, with commas; default: the config's.",
            autocompletion=names.completion(names.benchmarks),
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask the first questions of each only: not a score.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; default: the folder's, as RUN-model.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Prediction jobs at a time, a GPU each.")] = 1,
    configfile: shared.ConfigFiles = None,
    values: shared.ConfigValues = None,
    as_json: shared.AsJson = False,
) -> None:
    """Evaluate a model as it is, without training.

    Call it in the repository's folder. Scenes and questions that are missing are made first. Its
    predictions and metrics lie in results/eval/NAME; other runs' results stay.
    """
    from threedrs.config.yaml_files import parse_values
    from threedrs.evaluation.one_checkpoint import evaluate_checkpoint
    from threedrs.models.checkpoint.folder import check_folder

    if Path(checkpoint).is_dir() and names.trained_run(checkpoint) is None:
        check_folder(Path(checkpoint))
    try:
        results = evaluate_checkpoint(
            str(names.trained_run(checkpoint) or checkpoint),
            benchmarks=on.split(",") if on else None,
            limit=limit,
            name=name,
            gpus=gpus,
            configfiles=configfile or [],
            values=parse_values(values or []),
        )
    except ConfigError as error:
        # A checkpoint may also lie below data.root, so only now it is known that there is none.
        near = did_you_mean(checkpoint, names.RUNS.names())
        # A name or a folder that is there is not mistyped, so the error is about something else.
        if not near or names.trained_run(checkpoint) is not None or Path(checkpoint).exists():
            raise
        raise ConfigError(f"{error}; as a run, {near}") from error
    _print_metrics(results, as_json)


def _print_metrics(results: list[dict[str, Any]], as_json: bool) -> None:
    from threedrs.evaluation.tables import metrics_table, notes

    if as_json:
        shared.report(results, as_json)
        return
    for result in results:
        shared.print_whole(metrics_table(result))
        shared.say(*notes(result))


def score(
    benchmark: names.BenchmarkName,
    predictions: Annotated[
        Path,
        typer.Argument(help="predictions.jsonl, or published code's rows (docs/EVALUATION.md)."),
    ],
    out: Annotated[Path, typer.Option(help="Where metrics.json is written.")],
    bootstrap: Annotated[
        int, typer.Option(help="Resamples of scenes for the 95 % intervals; 0 for none.")
    ] = 1000,
    no_meteor: Annotated[
        bool, typer.Option("--no-meteor", help="Leave METEOR out, which needs Java and is slow.")
    ] = False,
    run: Annotated[
        str | None, typer.Option(help="Name of the run; default: taken from the path.")
    ] = None,
    per_question: Annotated[
        Path | None,
        typer.Option(help="Where each question's values are written; default: nowhere."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Published annotation file of the questions, for rows that hold only some of the "
            "true answers."
        ),
    ] = None,
    as_json: shared.AsJson = False,
) -> None:
    """Score predictions of a benchmark, in percent as papers do."""
    from threedrs.tasks.prediction import meta_path
    from threedrs.tasks.registry import find_task

    find_task(benchmark)
    names.check_file(predictions)
    for written in (out, per_question or out):
        names.check_out(written, predictions, meta_path(predictions), annotations)
    if per_question and per_question.resolve() == out.resolve():
        raise ConfigError(f"--per-question {per_question}: is --out too; give another name")

    from threedrs.evaluation.score import score_file

    with shared.progress() as show:
        show(f"scoring {predictions}")
        result = score_file(
            benchmark,
            predictions,
            out,
            bootstrap=bootstrap,
            meteor=not no_meteor,
            run=run,
            per_question=per_question,
            annotations=annotations,
        )
    _print_metrics([result], as_json)


def awareness(
    model: names.ModelName,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    scenes: Annotated[Path, typer.Option(help="Folder of the scene stores.")] = Path(
        "results/scenes"
    ),
    split: Annotated[Literal["val", "train"], typer.Option(help="Scenes of this split.")] = "val",
    left_out: Annotated[
        Path | None, typer.Option(help="JSON file that lists scenes whose scans cannot be used.")
    ] = None,
    settings: Annotated[
        str,
        typer.Option(
            help="JSON object: how the model is asked, as for threedrs.predict; what it leaves "
            "out is as in the model's run."
        ),
    ] = "{}",
    as_json: shared.AsJson = False,
) -> None:
    """Measure how 3D-aware a model is (docs/EVALUATION.md)."""
    folder = names.find_model(model)
    names.check_file(scenes)
    names.check_out(out, left_out)

    from threedrs.config.section import parse_object
    from threedrs.distributed.gpus import claim_gpus, own_device
    from threedrs.models.model_settings import PredictSettings
    from threedrs.scannet.excluded_scans import read_excluded
    from threedrs.scenes.store import SceneStore

    chosen = PredictSettings.for_model(folder, parse_object(settings, "--settings: "))
    excluded = read_excluded(left_out) if left_out else {}
    claim_gpus()

    with quick_imports():
        from threedrs.evaluation.answerer import StudentAnswerer
        from threedrs.evaluation.awareness import measure_awareness

    stores = [path for path in sorted(scenes.glob("*.zarr")) if path.stem not in excluded]
    with shared.progress() as show:
        result = measure_awareness(
            folder,
            StudentAnswerer.load(folder, chosen, own_device()),
            [path for path in stores if SceneStore.open(path).split == split],
            out,
            show,
        )
    means, of = result["mean"].items(), counted(len(result["scenes"]), "scene")
    shared.report(
        result,
        as_json,
        *(f"{name} {mean:.4f}, mean of {of}" for name, mean in means),
        "Cosines, of which 1 is the most alike: all_pairs and across_frames of one place, "
        "all_tokens of any two places. What counts is how far the first two are above it.",
    )


@model_app.callback()
def model_files() -> None:
    """Work on a trained model's files."""


@model_app.command()
def merge(
    model: names.ModelName,
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
) -> None:
    """Write adapter and base model as one whole checkpoint."""
    from threedrs.models.checkpoint.folder import check_merge

    folder = names.find_model(model)
    check_merge(folder, out)  # before torch is loaded
    with shared.progress() as show:
        show(f"merging {folder}")
        from threedrs.models.checkpoint.load_save import merge_adapter

        merge_adapter(folder, out)
    shared.say(f"{out}: written")
