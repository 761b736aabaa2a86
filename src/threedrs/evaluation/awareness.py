"""The 3D awareness of a model on the evaluation scenes, and metrics by quartiles of it.

A scene's score is that of `threedrs.models.voxel_awareness`; it costs one forward pass over the
visual tokens. Figure 2 of the 3DRS paper cuts a benchmark's questions into four parts by the score
of their scene, and asks how good the answers are in each. What is here is read by the report, so
torch is imported by the measurement alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threedrs.errors import DataError
from threedrs.evaluation.compare import PerQuestion
from threedrs.io.files import read_result, write_json
from threedrs.models.checkpoint.folder import model_hash
from threedrs.scenes.store import SceneStore

if TYPE_CHECKING:
    from threedrs.evaluation.answerer import StudentAnswerer

FORMAT_VERSION = 2
MEANS = ("all_pairs", "across_frames", "all_tokens")
QUARTILES = 4


def measure_awareness(
    model: Path,
    answerer: "StudentAnswerer",
    stores: Sequence[Path],
    out: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write the scores of a model on the scene ``stores`` to ``out``, and return them.

    ``model`` is as `predict_benchmark` takes it, and ``answerer`` is the same, loaded; ``say`` is
    told of each scene.

    Raises:
        DataError: there are no scenes, or the model's hidden states are not finite.
        StoreError: a store is damaged.
    """
    import torch

    from threedrs.models.visual_tokens import VOXEL
    from threedrs.models.voxel_awareness import scene_awareness

    if not stores:
        raise DataError("there is no scene to measure; run `snakemake --cores all scenes`")
    scenes: dict[str, Any] = {}
    for number, path in enumerate(stores, start=1):
        store = SceneStore.open(path)
        session = answerer.open(store).session
        hidden_VGGD, points_VGG3 = session.visual_VGGD, session.scene.patch_xyz_VGG3
        # The cosine of such a state is not a number, and neither is the mean over all scenes.
        if not hidden_VGGD.isfinite().all():
            raise DataError(
                f"{store.scene}: the hidden states of {model} are not finite; its training "
                "diverged, or the checkpoint is damaged"
            )
        # The frame's number, not its index: an image that stands twice is no second view.
        frame_V = torch.tensor(store.frame_ids, device=hidden_VGGD.device)
        tokens = hidden_VGGD[0, ..., 0].numel()
        found = scene_awareness(
            hidden_VGGD.flatten(0, 2), points_VGG3.flatten(0, 2), frame_V.repeat_interleave(tokens)
        )
        scenes[store.scene] = {name: round(value, 6) for name, value in asdict(found).items()}
        told = f"across_frames {found.across_frames:.3f}, all_tokens {found.all_tokens:.3f}"
        say(f"{store.scene}, {number} of {len(stores)} scenes: {told}")
    # Written when all scenes are measured: a mean over some would look like one over all.
    result = {
        "format_version": FORMAT_VERSION,
        "model": model_hash(model),
        "voxel": VOXEL,
        "mean": {
            name: round(float(np.mean([row[name] for row in scenes.values()])), 6) for name in MEANS
        },
        "scenes": scenes,
    }
    write_json(out, result)
    return result


def read_awareness(path: Path) -> dict[str, Any]:
    """Return what `measure_awareness` wrote.

    Raises:
        DataError: the file is missing or of another format version.
    """
    return read_result(path, FORMAT_VERSION, "awareness")


def quartile_of_questions(scores: Mapping[str, float], scenes: Sequence[str]) -> np.ndarray:
    """Return the quartile (Q,) of each question, 0 to 3, by the score of its scene.

    The questions, not the scenes, are cut into four equal parts, as in the paper's figure. A
    scene's questions have one score and stay together, in the quartile that the middle of them
    falls into.

    Raises:
        DataError: a scene has no score.
    """
    counts = Counter(scenes)
    if missing := [name for name in counts if name not in scores]:
        raise DataError(
            f"{missing[0]}: has questions and no awareness; run `snakemake --cores all awareness`"
        )
    quartile, before = {}, 0
    # Scenes of one score are told apart by name, so that a run gives one figure.
    for scene in sorted(counts, key=lambda name: (scores[name], name)):
        middle = before + counts[scene] / 2
        quartile[scene] = int(QUARTILES * middle / len(scenes))
        before += counts[scene]
    return np.array([quartile[scene] for scene in scenes])


def metric_by_quartile(
    questions: PerQuestion, metric: str, scores: Mapping[str, float]
) -> list[float | None]:
    """Return a metric over the questions of each quartile, in percent; None where it is empty."""
    quartile_Q = quartile_of_questions(scores, questions.scenes)
    rows = [np.flatnonzero(quartile_Q == number).tolist() for number in range(QUARTILES)]
    return [questions.metrics[metric].of(chosen).value() if chosen else None for chosen in rows]
