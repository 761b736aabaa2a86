"""How answers are decoded: a checkpoint's generation_config.json, and what greedy takes of it.

The published evaluation calls transformers' ``generate`` without sampling. So of the file a penalty
on repetition and the end tokens count, and what concerns sampling does not. The prompt reaches that
call as embeddings, so the penalty sees the tokens that were generated and none of the question's.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, where
from transformers import PreTrainedTokenizerBase

from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.folder import read_config
from threedrs.models.prompt import token_id
from threedrs.tasks.record import END

NAME = "generation_config.json"
END_OF_TEXT = "<|endoftext|>"
# They would change greedy answers too, and no published checkpoint has them.
UNKNOWN = ("bad_words_ids", "forced_eos_token_id", "min_new_tokens", "no_repeat_ngram_size",
           "suppress_tokens")  # fmt: skip
Generation = Mapping[str, Any]
logger = logging.getLogger(__name__)


def read_generation(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Generation:
    """Return the generation_config.json of a checkpoint folder, or what transformers does without.

    Raises:
        CheckpointError: it is not a JSON object, or a value in it is absurd or not known here.
    """
    path = folder / NAME
    if not path.is_file():
        # What transformers would do in the published evaluation.
        logger.info("%s: missing, so repeated tokens are not penalised", path)
        return {**published_generation(tokenizer), "repetition_penalty": 1.0}
    # A field that is null says as much as one that is not there.
    generation = {name: value for name, value in read_config(path).items() if value is not None}
    penalty, ends = generation.get("repetition_penalty", 1.0), _ends(generation)
    most = generation.get("max_new_tokens")
    problems = {
        "repetition_penalty": type(penalty) not in (int, float) or not 0 < penalty < 100,
        "eos_token_id": any(type(end) is not int or end < 0 for end in ends),
        "max_new_tokens": most is not None and (type(most) is not int or most < 1),
        **{name: bool(generation.get(name)) for name in UNKNOWN},
    }
    for name, wrong in problems.items():
        if wrong:
            raise CheckpointError(
                f"{path}: {name} is {generation.get(name)!r:.40}, which this version does not "
                "follow; mend it or fetch the file again"
            )
    return generation


def published_generation(tokenizer: PreTrainedTokenizerBase) -> Generation:
    """Return what the published checkpoints' generation_config.json says, in a tokenizer's ids."""
    end_of_text = token_id(tokenizer, END_OF_TEXT)
    return {
        "bos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "eos_token_id": [token_id(tokenizer, END), end_of_text],
        "repetition_penalty": 1.05,
    }


def _ends(generation: Generation) -> list[Any]:
    ends = generation.get("eos_token_id")
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What decides a greedy answer beside the logits."""

    ends: frozenset[int]  # tokens that end an answer; none of them is part of it
    # Divides positive and multiplies negative logits of tokens that are in the answer.
    penalty: float = 1.0
    most: int | None = None  # tokens of the longest answer, None for what the caller asks for

    @classmethod
    def of(
        cls, style: str, generation: Generation | None, tokenizer: PreTrainedTokenizerBase
    ) -> "Decoding":
        """Return the decoding of ``eval.decoding``: greedy, or reference, as ``generation`` says.

        ``generation`` is None for random weights, which are asked as the published ones.
        """
        end = token_id(tokenizer, END)
        if style == "greedy":
            return cls(ends=frozenset({end}))
        generation = published_generation(tokenizer) if generation is None else generation
        return cls(
            ends=frozenset(_ends(generation) or [end]),
            penalty=float(generation.get("repetition_penalty", 1.0)),
            most=generation.get("max_new_tokens"),
        )

    def next_tokens(self, logits_BV: Tensor, seen_BV: Tensor | None) -> Tensor:
        """Return the next token (B,) of answers that hold the words ``seen_BV`` (bool) so far.

        Without a penalty nobody needs to know them.
        """
        if seen_BV is not None:
            # In float32, as the published evaluation: a bfloat16 logit over 1.05 may round back.
            logits_BV = logits_BV.float()
            changed_BV = where(logits_BV > 0, logits_BV / self.penalty, logits_BV * self.penalty)
            logits_BV = where(seen_BV, changed_BV, logits_BV)
        return logits_BV.argmax(-1)
