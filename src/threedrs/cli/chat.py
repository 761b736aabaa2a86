"""``threedrs ask`` and ``threedrs chat``: one question, or many, to a model about a scene."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from threedrs.cli.names import ModelName, SceneName, check_image, find_model, find_scene
from threedrs.cli.shared import AsJson, progress, report, say
from threedrs.workflow.processes import quick_imports

if TYPE_CHECKING:
    from threedrs.evaluation.ask import SceneDialogue

Boxes = Annotated[str, typer.Option(help="Boxes to choose from: pred or gt.")]
Top = Annotated[int, typer.Option(min=1, help="How many boxes to show.")]
PromptStyle = Annotated[
    str, typer.Option(help="reference, or as_trained: with the instruction sentence of training.")
]
# The plain words do the same in Python and psql, and are not questions about a scene.
ENDS, HELPS = ("/quit", "quit", "exit"), ("/help", "help", "?")
Longest = Annotated[int, typer.Option(help="Longest answer, in tokens.")]


def ask(
    model: ModelName,
    scene: SceneName,
    question: Annotated[
        str | None, typer.Argument(help="The question; with --ground: what the object looks like.")
    ] = None,
    ground: Annotated[
        bool, typer.Option("--ground", help="Find the described object among the scene's boxes.")
    ] = False,
    box: Annotated[
        str | None, typer.Option(help="cx,cy,cz,dx,dy,dz in metres: describe what is in this box.")
    ] = None,
    boxes: Boxes = "pred",
    top: Top = 3,
    out: Annotated[Path, typer.Option(help="Image of the boxes found; .jpg or .png.")] = Path(
        "found.png"
    ),
    prompt: PromptStyle = "as_trained",
    max_new_tokens: Longest = 512,
    as_json: AsJson = False,
) -> None:
    """Ask a model about a scene: a question, an object or a box."""
    from threedrs.evaluation.dialogue import Request, parse_box, reply_lines

    request = Request(
        question=None if ground else question,
        ground=question if ground else None,
        box=None if box is None else parse_box(box),
    )
    dialogue = _open(model, scene, out, boxes, prompt, max_new_tokens)
    reply = dialogue.reply(request, out, top)
    report(reply, as_json, *reply_lines(reply), indent=None)


def chat(
    model: ModelName,
    scene: SceneName,
    boxes: Boxes = "pred",
    top: Top = 3,
    out: Annotated[
        Path,
        typer.Option(help="Images of the boxes found, numbered: found-1.png, found-2.png, ..."),
    ] = Path("found.png"),
    prompt: PromptStyle = "as_trained",
    max_new_tokens: Longest = 512,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help='Read a JSON object a line ({"question": TEXT}, {"ground": TEXT} or '
            '{"box": [cx, cy, cz, dx, dy, dz]}) and print one for each.',
        ),
    ] = False,
) -> None:
    """Ask a model many things about a scene, which is loaded once.

    /help says what may be typed. What is piped in is answered line by line. With --json the status
    is 1 if a line was refused.
    """
    from threedrs.errors import ThreedrsError
    from threedrs.evaluation.dialogue import HELP, Request, reply_lines

    dialogue = _open(model, scene, out, boxes, prompt, max_new_tokens)
    asked: list[str] = []
    refused = images = 0
    for line in _lines(f"{dialogue.store.scene}> ", typed=not as_json):
        if not as_json and line in ("/history", *HELPS, *ENDS):
            if line in ENDS:
                break
            numbered = [f"{number}  {text}" for number, text in enumerate(asked, start=1)]
            say(*(HELP.splitlines() if line in HELPS else numbered))
            continue
        asked.append(line)
        try:
            request = Request.from_json(line) if as_json else Request.from_text(line)
            image = out.with_stem(f"{out.stem}-{images + 1}")
            with progress() as show:
                show("answering")
                reply = dialogue.reply(request, image, top)
        # The next question can still be answered, and a wrong one shall not cost the loading.
        except ThreedrsError as error:
            refused += 1
            report({"error": str(error)}, as_json, f"error: {error}", indent=None)
            continue
        images += "image" in reply
        report(reply, as_json, *reply_lines(reply), indent=None)
    if as_json and refused:
        raise typer.Exit(1)


def _open(
    model: str, scene: str, out: Path, boxes: str, prompt: str, max_new_tokens: int
) -> "SceneDialogue":
    check_image(out)
    folder, store = find_model(model), find_scene(scene)

    from threedrs.distributed.gpus import claim_gpus, own_device
    from threedrs.models.model_settings import PredictSettings

    asked = {"prompt": prompt, "boxes": boxes, "max_new_tokens": max_new_tokens}
    settings = PredictSettings.for_model(folder, asked)
    claim_gpus()
    with progress() as show:
        show(f"loading {folder}")
        with quick_imports():
            from threedrs.evaluation.answerer import StudentAnswerer
            from threedrs.evaluation.ask import SceneDialogue
            from threedrs.scenes.store import SceneStore

        opened = SceneStore.open(store)  # what is wrong with it is said before the model is loaded
        return SceneDialogue(StudentAnswerer.load(folder, settings, own_device()), opened)


def _lines(prompt: str, *, typed: bool) -> Iterator[str]:
    """Yield what is typed after the prompt, or the lines that are piped in; blank ones are not."""
    if not (typed and sys.stdin.isatty()):
        yield from filter(None, map(str.strip, sys.stdin))
        return
    import readline  # noqa: F401  # `input` edits lines and remembers them by it

    say("Ask about the scene; /help says what else, /quit or Ctrl-D ends.")
    try:
        while True:
            if line := input(prompt).strip():
                yield line
    except (EOFError, KeyboardInterrupt):
        print()
