"""Which tensor of a checkpoint folder fills which parameter of a student, from names and shapes."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.folder import StoredTensor
from threedrs.models.student import Student
from threedrs.models.zero3 import shape_of

logger = logging.getLogger(__name__)

EMBEDDINGS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")

# The remedy where a tokenizer has tokens for which a vocabulary matrix has no row.
FEWER_ROWS = (
    "copy the tokenizer's files from where the weights come from, or give the matrices a row for "
    "each of its tokens (resize_token_embeddings of transformers)"
)


def match_tensors(
    student: Student,
    stored: Mapping[str, StoredTensor],
    folder: Path,
    first_new: int | None,
    trained: int | None,
) -> dict[str, StoredTensor]:
    """Return the tensors to take over by the student's names, and log what is new or not used.

    ``first_new`` is the row of the first new token in the embedding matrices, None if none is new.
    ``trained`` are the teacher's channels of a folder of ours, None for any other folder.

    Raises:
        CheckpointError: a tensor is unknown, missing or of another shape.
    """
    expected = {n: shape_of(value) for n, value in student.state_dict(keep_vars=True).items()}
    layout, run_layers = student.family.tensor_names, student.family.run_layers
    names, ignored, unknown, wrong, remedy = {}, [], [], [], ""
    for published, tensor in stored.items():
        own = layout.own_name(published)
        if own in expected:
            shape = tensor.shape
            # Pretrained matrices have more rows than tokens, or lack those of the new ones.
            held = expected[own][0] if first_new is None else first_new
            if own in EMBEDDINGS and shape and shape[0] >= held:
                shape = (expected[own][0], *shape[1:])
            elif own in EMBEDDINGS:
                remedy = f"; {FEWER_ROWS}"
            if shape != expected[own]:
                wrong.append(f"{published} {tensor.shape}, expected {expected[own]}")
            names[own] = tensor
        elif layout.is_ignored(published, run_layers) or (own or "").startswith("proj_3d."):
            ignored.append(published)
        else:
            unknown.append(published)
    missing = [name for name in expected if name not in names]
    if student.text_config.tie_word_embeddings:
        # Where a folder holds the head all the same, it is the matrix it is tied to that counts.
        names.pop(EMBEDDINGS[1], None)
        missing = [name for name in missing if name != EMBEDDINGS[1]]
    untrained = _untrained_heads(names, trained)
    new_heads = [name for name in missing if name.startswith(untrained)]
    problems = {
        "unknown": unknown,
        "missing": [layout.published_name(name) for name in missing if name not in new_heads],
        "of another shape": wrong,
    }
    # All kinds at once: which of them there are says what kind of folder this is.
    if found := [f"{len(what)} {kind}: {_some(what)}" for kind, what in problems.items() if what]:
        raise CheckpointError(
            f"{folder}: tensors do not fit the model ({'; '.join(found)}){remedy}"
        )
    if new_heads:
        new = [layout.published_name(name) for name in new_heads]
        logger.info("%s: %d tensors start at random: %s", folder, len(new), _some(new))
    # Said although nothing is wrong: what is dropped without a word may be what somebody looks for.
    if ignored:
        logger.info("%s: %d tensors are not used: %s", folder, len(ignored), _some(ignored))
    return names


def _untrained_heads(names: Iterable[str], trained: int | None) -> tuple[str, ...]:
    """Return the heads that may be new: whole, never in part, where the training had none."""
    was_trained = {"grounding_head.": trained is not None, "proj_3d.": bool(trained)}
    there = {head for head in was_trained if any(name.startswith(head) for name in names)}
    return tuple(head for head in was_trained if not was_trained[head] and head not in there)


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def vocabulary_rows(matrix_TD: Tensor, rows: int, first_new: int | None) -> Tensor:
    """Return a vocabulary matrix with exactly ``rows`` rows, as published training cuts it.

    The rows ``first_new`` and ``first_new + 1`` start as the mean of those before.
    """
    result_TD = matrix_TD.new_zeros(rows, matrix_TD.shape[1])
    result_TD[: len(matrix_TD)] = matrix_TD[:rows]
    if first_new is not None:
        mean_D = matrix_TD[:first_new].float().mean(0)
        result_TD[first_new : first_new + 2] = mean_D.to(matrix_TD.dtype)
    return result_TD
