"""``threedrs eval``, ``score``, ``ask``, ``model``: a model's scores, one answer, its files."""

from pathlib import Path
from typing import Annotated

import typer

from threedrs.cli.shared import ConfigFiles, ConfigValues, console, print_whole

model_app = typer.Typer(help="Work on a trained model's files.", no_args_is_help=True)
EMPTY = "(the model's answer is empty)"


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(help="Model folder, published or trained; initial: before any training."),
    ],
    on: Annotated[
        str | None, typer.Option(help="Benchmarks, with commas; default: the config's.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Ask the first questions of each only: not a score."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; default: the folder's, as RUN-model.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Prediction jobs at a time, a GPU each.")] = 1,
    configfile: ConfigFiles = None,
    values: ConfigValues = None,
) -> None:
    """Evaluate a model as it is, from the repository's folder: what lacks is made first.

    Its predictions and metrics lie in results/eval/NAME; other runs' results stay.
    """
    from threedrs.config.yaml_files import parse_values
    from threedrs.evaluation.one_checkpoint import evaluate_checkpoint
    from threedrs.evaluation.tables import metrics_table, notes

    results = evaluate_checkpoint(
        checkpoint,
        benchmarks=on.split(",") if on else None,
        limit=limit,
        name=name,
        gpus=gpus,
        configfiles=configfile or [],
        values=parse_values(values or []),
    )
    for result in results:
        print_whole(metrics_table(result))
        for line in notes(result):
            console().print(line)


def score(
    benchmark: Annotated[
        str, typer.Argument(help="the benchmark, by a name of the config's eval.benchmarks")
    ],
    predictions: Annotated[
        Path,
        typer.Argument(help="predictions.jsonl, or the field's own jsonl (docs/EVALUATION.md)"),
    ],
    out: Annotated[Path, typer.Option(help="where metrics.json is written")],
    bootstrap: Annotated[
        int, typer.Option(help="resamples for the 95 % intervals (scenes as clusters); 0: none")
    ] = 1000,
    no_meteor: Annotated[
        bool, typer.Option("--no-meteor", help="leave METEOR out (it needs Java and is slow)")
    ] = False,
    run: Annotated[
        str | None, typer.Option(help="name of the run; default: taken from the path")
    ] = None,
    per_question: Annotated[
        Path | None,
        typer.Option(help="where the per-question values are written; default: nowhere"),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="published annotation file of the questions: its true answers count, for rows "
            "that hold fewer"
        ),
    ] = None,
) -> None:
    """Score a benchmark's predictions; values are percent, as papers print them."""
    from threedrs.evaluation.score import score_file
    from threedrs.evaluation.tables import metrics_table, notes

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
    print_whole(metrics_table(result))
    for line in notes(result):
        console().print(line)


def ask(
    model: Annotated[Path, typer.Argument(help="Folder of the trained model.")],
    scene: Annotated[Path, typer.Argument(help="A scene store, <scene>.zarr.")],
    question: Annotated[
        str, typer.Argument(help="The question; with --ground: what the object looks like.")
    ] = "",
    ground: Annotated[
        bool, typer.Option("--ground", help="Find the described object among the scene's boxes.")
    ] = False,
    box: Annotated[
        str | None, typer.Option(help="cx,cy,cz,dx,dy,dz in metres: describe what is in this box.")
    ] = None,
    boxes: Annotated[str, typer.Option(help="Boxes to choose from: pred or gt.")] = "pred",
    top: Annotated[int, typer.Option(min=1, help="How many boxes to show.")] = 3,
    out: Annotated[Path, typer.Option(help="Image of the boxes found; .jpg or .png.")] = Path(
        "found.jpg"
    ),
    prompt: Annotated[
        str,
        typer.Option(help="reference, or as_trained: with the instruction sentence of training."),
    ] = "reference",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 512,
) -> None:
    """Ask a trained model about a scene: a question, an object to find, or a box to describe."""
    from threedrs.errors import ConfigError
    from threedrs.evaluation.settings import PredictSettings

    if sum((bool(question), box is not None)) != 1:
        raise ConfigError("give a question, or --box to describe; not both")
    if ground and box is not None:
        raise ConfigError("--ground finds a box and --box describes one; give one of them")
    # Asked before the model is loaded, which takes a while.
    if out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ConfigError(f"--out {out}: give a name that ends in .jpg or .png")
    place = _numbers(box) if box is not None else None
    settings = PredictSettings.from_json(
        {"prompt": prompt, "boxes": boxes, "max_new_tokens": max_new_tokens}, model
    )

    from threedrs.evaluation.ask import SceneDialogue, draw_found
    from threedrs.io.images import save_image

    print_line = console().print
    dialogue = SceneDialogue(model, scene, settings)
    if place is not None:
        print_line(dialogue.describe(place) or EMPTY)
        return
    if not ground:
        print_line(dialogue.answer(question) or EMPTY)
        return
    found = dialogue.find(question)
    best = found.boxes[:top]
    for rank, one in enumerate(best, start=1):
        numbers = ", ".join(f"{number:.2f}" for number in one.box)
        print_line(f"{rank}  {one.score:+.3f}  box {one.id} {one.label}  [{numbers}]")
    print_line(f"-  {found.none:+.3f}  none of the {len(found.boxes)} boxes")
    save_image(draw_found(dialogue.store, best), out)
    print_line(f"image: {out}")


def _numbers(text: str) -> list[float]:
    from threedrs.errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--box {text}: give six numbers, cx,cy,cz,dx,dy,dz") from error


def awareness(
    model: Annotated[str, typer.Argument(help="A run, or the folder of a checkpoint.")],
    scenes: Annotated[Path, typer.Option(help="Folder of the scene stores.")] = Path(
        "results/scenes"
    ),
    split: Annotated[str, typer.Option(help="Scenes of this split: val or train.")] = "val",
    left_out: Annotated[
        Path | None, typer.Option(help="JSON file that lists scenes whose scans cannot be used.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
    settings: Annotated[
        str,
        typer.Option(
            help="JSON object: how the model is asked, as for threedrs.predict; what it leaves "
            "out is as in the model's run."
        ),
    ] = "{}",
) -> None:
    """Measure how 3D-aware a model's visual tokens are, scene by scene (docs/EVALUATION.md)."""
    from threedrs.distributed.gpus import claim_gpus, own_device
    from threedrs.errors import ConfigError, did_you_mean, nearest_path
    from threedrs.evaluation.settings import PredictSettings
    from threedrs.scannet.excluded_scans import read_excluded
    from threedrs.scenes.store import SceneStore

    runs = Path("results/train")
    is_run = not Path(model).exists()
    folder = runs / model / "model" if is_run else Path(model)
    if not folder.exists():
        known = sorted(path.parent.name for path in runs.glob("*/model"))
        trained = f"trained are {', '.join(known)}" if known else "no run is trained yet"
        near = nearest_path(Path(model)) if "/" in model else did_you_mean(model, known)
        raise ConfigError(
            f"{model}: is neither a folder nor a trained run; "
            + " ".join(filter(None, [near, trained]))
        )
    if out is None:
        # What the report reads has the settings and the excluded scenes of the configuration.
        made = f"results/eval/{model}/awareness.json"
        raise ConfigError(
            "--out: say where the scores go, e.g. --out awareness.json"
            + (f"; `snakemake --cores all {made}` makes those of the report" if is_run else "")
        )
    chosen = PredictSettings.from_text(settings, folder)
    excluded = read_excluded(left_out) if left_out else {}
    claim_gpus()

    from threedrs.evaluation.answerer import StudentAnswerer
    from threedrs.evaluation.awareness import measure_awareness

    stores = [path for path in sorted(scenes.glob("*.zarr")) if path.stem not in excluded]
    result = measure_awareness(
        folder,
        StudentAnswerer.load(folder, chosen, own_device()),
        [path for path in stores if SceneStore.open(path).split == split],
        out,
        lambda line: typer.echo(f"awareness: {line}", err=True),
    )
    for name, value in result["mean"].items():
        typer.echo(f"{name} {value:.4f}, mean of {len(result['scenes'])} scenes")
    typer.echo(
        "Cosines, of which 1 is the most alike: all_pairs and across_frames of one place, "
        "all_tokens of any two places. What counts is how far the first two are above it."
    )


@model_app.callback()
def model() -> None:
    """Work on a trained model's files."""


@model_app.command()
def merge(
    run_model: Annotated[Path, typer.Argument(help="Model folder of a LoRA run.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
) -> None:
    """Write adapter and base model as one whole checkpoint in the published layout."""
    from threedrs.models.checkpoint.load_save import merge_adapter

    merge_adapter(run_model, out)
    typer.echo(f"{out}: written")
