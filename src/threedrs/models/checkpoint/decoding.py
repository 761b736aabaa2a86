"""How answers are decoded: a checkpoint's generation_config.json, and what greedy takes of it.

The published evaluation calls transformers' ``generate`` without sampling. So of the file a penalty
on repetition and the end tokens count, and what concerns sampling does not. The prompt reaches that
call as embeddings, so the penalty sees the tokens that were generated and none of the question's.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor, where
from transformers import PreTrainedTokenizerBase

from threedrs.config.value_types import NaturalInt, PositiveInt
from threedrs.errors import CheckpointError, DataError
from threedrs.io.external_json import ExternalRow, check_external
from threedrs.models.checkpoint.folder import read_config
from threedrs.models.prompt import token_id
from threedrs.tasks.record import END

NAME = "generation_config.json"
END_OF_TEXT = "<|endoftext|>"
Generation = Mapping[str, Any]
logger = logging.getLogger(__name__)


def _listed(value: Any) -> Any:
    """Return the end tokens as a list, where the file names a single one, or null."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _refuse(value: Any) -> Any:
    if value:
        raise ValueError(f"is {value!r:.40}, which this version does not follow")
    return value


NotFollowed = Annotated[Any, AfterValidator(_refuse)]


class GenerationFile(ExternalRow):
    """What greedy decoding takes of a generation_config.json."""

    repetition_penalty: Annotated[float, Field(gt=0, lt=100)] = 1.0
    eos_token_id: Annotated[list[NaturalInt], BeforeValidator(_listed)] = Field([])
    max_new_tokens: PositiveInt | None = None
    # They would change greedy answers too, and no published checkpoint has them.
    bad_words_ids: NotFollowed = None
    forced_eos_token_id: NotFollowed = None
    min_new_tokens: NotFollowed = None
    no_repeat_ngram_size: NotFollowed = None
    suppress_tokens: NotFollowed = None


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
    generation = read_config(path)
    try:
        check_external(generation, GenerationFile, str(path), "this version follows no other value")
    except DataError as error:
        raise CheckpointError(str(error)) from error
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
        said = GenerationFile(**(generation or published_generation(tokenizer)))
        return cls(
            ends=frozenset(said.eos_token_id or [end]),
            penalty=said.repetition_penalty,
            most=said.max_new_tokens,
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
