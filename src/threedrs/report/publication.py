"""A trained run as a model on the Hugging Face Hub: weights, card, scores and provenance.

The folder to upload links to the run's own files, so it takes no space, and it can be looked at
before anything leaves the machine. Records and predictions stay behind, as they hold the texts of
the benchmarks. Of a path outside the working folder only the name is published: folders above it
are private and tell no reader anything.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threedrs.errors import ConfigError, DataError, one_line
from threedrs.evaluation.aggregate import read_metrics
from threedrs.evaluation.tables import run_notes
from threedrs.io.files import atomic_folder, read_json, read_text, write_json, write_text
from threedrs.models.backbones.family import HubCheckpoint
from threedrs.models.backbones.known_backbones import hub_checkpoint
from threedrs.models.checkpoint.folder import ADAPTER_FILE, model_hash
from threedrs.report.page import code_commit
from threedrs.tasks.registry import TASKS
from threedrs.workflow.code_hash import STAGES, code_hash

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

FORMAT_VERSION = 1
TRAINING_FILES = ("config.json", "train.json", "log.jsonl", "loss.png")
# Files that name others: the training's settings, and an adapter's base model.
NAMING_FILES = ("config.json", "train.json", ADAPTER_FILE)
_FOLDERS = re.compile(r"(?<![\w/.:~])(~|\.\.)?(/[^/\s]+)*/(?=\w)")  # of a path within a text


def write_publication(run: str, results: Path) -> Path:
    """Write the folder of a run as it is uploaded, ``results/publish/<run>``, and return it.

    Raises:
        ConfigError: it has no scores.
        DataError, CheckpointError: a file is missing, damaged or malformed.
    """
    train = results / "train" / run
    paths = {name: results / "eval" / run / name / "metrics.json" for name in TASKS}
    found = {name: read_metrics(path) for name, path in paths.items() if path.is_file()}
    # The answers to the first questions only are no score.
    scores = {name: metrics for name, metrics in found.items() if not metrics.get("limit")}
    if not scores:
        raise ConfigError(
            f"{run}: has no scores yet, which its card shows; run `snakemake --cores all scores`"
        )
    # Before anything is written: a damaged file would be published as it is.
    facts = _provenance(run, results, scores, model_hash(train / "model"))
    base = hub_checkpoint(read_json(train / "config.json")["model"])
    folder = results / "publish" / run
    with atomic_folder(folder) as temporary:
        for path in sorted((train / "model").iterdir()):
            # Snakemake's own mark begins with a dot; the card is written anew.
            if path.is_file() and path.name != "README.md" and path.name[0] != ".":
                _place(path, temporary / path.name, base)
        for place in ("training", "scores"):
            (temporary / place).mkdir()
        for name in TRAINING_FILES:
            _place(train / name, temporary / "training" / name, base)
        for benchmark, metrics in scores.items():
            write_json(temporary / "scores" / f"{benchmark}.json", _without_folders(metrics))
        write_json(temporary / "provenance.json", facts)
        write_text(temporary / "README.md", _card(run, train, scores, facts, base))
    return folder


def _place(file: Path, there: Path, base: HubCheckpoint | None) -> None:
    """Link to ``file``, or write it where it names a private folder."""
    if file.name in NAMING_FILES:
        content = read_json(file)
        public = _without_folders(content)
        if file.name == ADAPTER_FILE and base is not None:
            public["base_model_name_or_path"] = base.repository
        if public != content:
            write_json(there, public)
            return
    there.symlink_to(file.resolve())


def _without_folders(value: Any) -> Any:
    """Return JSON in which each path outside the working folder is a name."""
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    if isinstance(value, str):
        # Why a scan is excluded begins with its path, and says more behind it.
        path, colon, rest = value.partition(": ")
        if path.startswith(("/", "~", "..")):
            path = Path(path).name
        return path + colon + _FOLDERS.sub("", rest)
    return value


def _provenance(
    run: str, results: Path, scores: Mapping[str, Mapping[str, Any]], digest: str
) -> dict[str, Any]:
    train = results / "train" / run
    config, numbers = read_json(train / "config.json"), read_json(train / "train.json")
    # The recorded path begins at the folder that the training worked in.
    mix = Path(config["paths"]["mix"]).with_suffix(".summary.json").name
    return {
        "format_version": FORMAT_VERSION,
        "run": run,
        "commit": code_commit(),
        # Of the code that publishes. That of the training is part of the recipe's hash.
        "code": {stage: code_hash(stage) for stage in STAGES},
        "recipe": numbers["config_hash"],
        "model_sha256": digest,
        "versions": numbers["versions"],
        "samples_seen": numbers["samples"],
        "records": read_json(results / "instructions/mixes" / mix)["benchmarks"],
        "questions": {name: metrics["n"] for name, metrics in scores.items()},
        "predictions": {
            name: metrics["provenance"]["predictions_sha256"] for name, metrics in scores.items()
        },
    }


def _card(
    run: str,
    train: Path,
    scores: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    checkpoint: HubCheckpoint | None,
) -> str:
    """Return the model's card: metadata that the Hub reads, scores, training, licences, origin."""
    from huggingface_hub import ModelCard

    config = _without_folders(typed := read_json(train / "config.json"))
    base = config["model"]["path"]
    rows = [
        (TASKS[benchmark].title, headline, metrics["metrics"][headline.metric], metrics["n"])
        for benchmark, metrics in scores.items()
        for headline in TASKS[benchmark].headline
    ]
    numbers = read_json(train / "train.json")
    card = ModelCard.from_template(
        _metadata(run, scores, checkpoint, generated=bool(config["data"]["demo"])),
        template_str=files("threedrs.report").joinpath("templates/model_card.md.j2").read_text(),
        run=run,
        rows=rows,
        notes=run_notes({"train": numbers, "benchmarks": scores}),
        training=_training_part(train, typed, config),
        checkpoint=checkpoint,
        base=Path(base).name if base else None,
        config=config,
        facts=facts,
    )
    return str(card)


def _training_part(train: Path, typed: Mapping[str, Any], public: Mapping[str, Any]) -> str:
    """Return what the training's own card says, with ``public`` settings for those ``typed``."""
    # It begins with the run's name, which stands at the head of the published card.
    text = read_text(train / "model/README.md").split("\n", 1)[1].strip()
    text = text.replace("../config.json", "training/config.json")
    # The places that it names: the base model, and the mix.
    for section, key in (("model", "path"), ("paths", "mix")):
        if place := typed[section][key]:
            name = public[section][key].replace("\\", r"\\")
            text = re.sub(rf"(?<![\w/.]){re.escape(place)}(?![\w/])", name, text)
    return text


def _metadata(
    run: str, scores: Mapping[str, Any], checkpoint: HubCheckpoint | None, *, generated: bool
) -> "ModelCardData":
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="visual-question-answering",
            # The Hub ranks models by these names, where scores on generated rooms do not belong.
            dataset_type=f"{benchmark}-generated" if generated else benchmark,
            dataset_name=f"{TASKS[benchmark].title}{' on generated rooms' if generated else ''}",
            dataset_split=TASKS[benchmark].evaluation_split,
            metric_type=headline.metric,
            metric_name=f"{headline.title}, percent",
            metric_value=round(value["value"], 2),
            metric_args={"interval_95": [round(value[end], 2) for end in ("low", "high")]}
            if value.get("low") is not None
            else None,
        )
        for benchmark, metrics in scores.items()
        for headline in TASKS[benchmark].headline
        if (value := metrics["metrics"][headline.metric]) and value.get("value") is not None
    ]
    return ModelCardData(
        model_name=run,
        eval_results=results,
        base_model=checkpoint.repository if checkpoint else None,
        license="other",
        license_name="base-weights-and-training-data",
        pipeline_tag="image-text-to-text",
        tags=["3d-scene-understanding", "3drs", *([] if generated else ["scannet"])],
    )


def check_token() -> None:
    """Check that there is a token for the Hub.

    Raises:
        ConfigError: there is none.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise ConfigError("publish: there is no token; run `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, repo: str, public: bool) -> str:
    """Upload a folder of `write_publication` as the model repository ``repo``; return its address.

    A name without an owner is one of the token's.

    Raises:
        ConfigError: the repository is there and its visibility is not what ``public`` asks for.
        DataError: the Hub cannot be reached, or refuses.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        # One that was there keeps its visibility, so a private upload could land in the open.
        if bool(api.model_info(made.repo_id).private) == public:
            found = (
                f"private; make it public at {made}/settings" if public else "public; give --public"
            )
            raise ConfigError(f"publish: {made.repo_id} is {found}, or another name with --repo")
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message=f"Publish {folder.name}"
        )
    except (httpx.TransportError, OfflineModeIsEnabled) as error:
        raise DataError(
            f"publish: the Hub cannot be reached ({one_line(error)}); connect this machine and run "
            f"the same again; {folder} is whole"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise DataError(
            f"publish: the Hub refuses {repo} ({one_line(error)}); check the name and the token "
            "(`hf auth login`)"
        ) from error
    return str(made)
