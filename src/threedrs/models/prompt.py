"""From records to tokens: the chat format, the cut into shared prefix and own suffix, the labels.

The whole text of a sample is

    <|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n
    <|im_start|>user\\n<image>\\n[instruction sentence]\\n[question]<|im_end|>\\n
    <|im_start|>assistant\\n[answer]<|im_end|>\\n

(without the line breaks shown) with the visual tokens in the place of ``<image>``. All samples of a
scene share its beginning. The cut lies before the full stop of the instruction sentence, because
Qwen2's tokeniser starts a new word there whatever follows and merges the full stop with the line
breaks after it: so shared ids + own ids are exactly the ids of the whole text. Without the
instruction sentence the cut lies right behind the visual tokens. Qwen2-VL's tokenizer, the one
that knows them, has two tokens more around the visual tokens.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from threedrs.errors import DataError
from threedrs.models.backbones.family import VISION_MARKS
from threedrs.models.packing import IGNORE, Prefix, Query, Sample
from threedrs.tasks.record import COORD, END, GROUND, IMAGE, START, Record

PromptStyle = Literal["reference", "as_trained"]
INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial "
    "relationships in the video and answer the following questions."
)
BEFORE_IMAGE = f"{START}system\nYou are a helpful assistant.{END}\n{START}user\n"
SHARED_AFTER_IMAGE = {"as_trained": "\n" + INSTRUCTION.removesuffix("."), "reference": ""}
OWN_START = {"as_trained": ".\n", "reference": "\n"}
ASSISTANT = f"{START}assistant\n"


def as_trained(record: Record) -> str:
    """Return the user turn of training, before the visual tokens take the place of ``<image>``."""
    return f"{IMAGE}\n{INSTRUCTION}\n{record.human.replace(IMAGE, '')}"


# A loader meets most answers, and many questions, again and again; 2^13 of them take some 11 MB.
@lru_cache(maxsize=2**13)
def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the id of a token that the vocabulary holds as such."""
    number = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(number, int), f"{token} is not one token"
    return number


@lru_cache(maxsize=4)
def shared_prefix(
    tokenizer: PreTrainedTokenizerBase, prompt: PromptStyle, label_chat_tokens: bool
) -> Prefix:
    """Return the shared tokens of a prompt style, whose chat tokens may have labels."""
    # Not by its id: an unknown token may pass for another one.
    start, end = VISION_MARKS if VISION_MARKS[0] in tokenizer.get_vocab() else ("", "")
    labelled = frozenset[int]()
    if label_chat_tokens:
        (newline,) = _encode(tokenizer, "\n")  # 198 in Qwen2
        labelled = frozenset({token_id(tokenizer, START), token_id(tokenizer, END), newline})
    return Prefix(
        before_ids=_encode(tokenizer, BEFORE_IMAGE + start),
        after_ids=_encode(tokenizer, end + SHARED_AFTER_IMAGE[prompt]),
        # By id, so a newline that the tokenizer has merged with what stands before it has no label.
        labelled=labelled,
    )


def _question_ids(
    record: Record, tokenizer: PreTrainedTokenizerBase, prompt: PromptStyle
) -> tuple[int, ...]:
    """The ids from the cut to the end of the user turn, its closing newline included."""
    # Only the mark goes: the space behind it stays, as in the published training.
    return _encode(tokenizer, OWN_START[prompt] + record.human.replace(IMAGE, "") + END + "\n")


def _coordinate(
    record: Record, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[int, np.ndarray] | None:
    """The index in ``ids`` of the ``<coord>`` token and its point; None without one."""
    coord = token_id(tokenizer, COORD)
    indices = [index for index, token in enumerate(ids) if token == coord]
    if not indices:
        return None
    if len(indices) > 1:
        raise DataError(f"{record.id}: {COORD} stands {len(indices)} times; one point is known")
    if record.box_input is None:
        raise DataError(f"{record.id}: the text has {COORD} but the record has no box_input")
    return indices[0], np.array(record.box_input[:3], dtype=np.float32)


def _target_rows(record: Record, box_ids: Sequence[int]) -> list[int]:
    """The rows, in the scene's boxes, of the objects that a grounding record means."""
    if record.object_ids is None:
        raise DataError(f"{record.id}: a grounding record needs object_ids ([] for no object)")
    # A scene may lack ids in between, so a row is looked up and not taken for the id.
    row_of = {box_id: row for row, box_id in enumerate(box_ids)}
    if missing := [object_id for object_id in record.object_ids if object_id not in row_of]:
        raise DataError(
            f"{record.id}: object {missing[0]} has no box in {record.scene}; "
            "convert the annotations again with this run's boxes"
        )
    return [row_of[object_id] for object_id in record.object_ids]


def build_sample(
    record: Record,
    box_ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    label_chat_tokens: bool,
) -> Sample:
    """Return the training sample of a record; the instruction sentence is in.

    The assistant turn is labelled, its header included; of the other turns, with
    ``label_chat_tokens``, the chat tokens and single newlines (the published way). ``box_ids`` has
    the object id of each row of the scene's boxes.

    Raises:
        DataError: an object without a box, or ``<coord>`` without a point.
    """
    # Question and answer are encoded apart. Special tokens stand at the cut, so no word spans it.
    question = _question_ids(record, tokenizer, "as_trained")
    answer = _encode(tokenizer, f"{ASSISTANT}{record.answer}{END}\n")
    ids = question + answer
    prefix = shared_prefix(tokenizer, "as_trained", label_chat_tokens)
    target_rows: list[int] | None = None
    ground_index: int | None = None
    if record.answer == GROUND:
        target_rows = _target_rows(record, box_ids)
        # The head reads the hidden state of the mark itself, which has seen the whole question.
        ground_index = len(question) + answer.index(token_id(tokenizer, GROUND))
        labels = [IGNORE] * len(ids)  # a grounding sample has no text loss
    else:
        chat = [token if token in prefix.labelled else IGNORE for token in question]
        labels = [*chat, *answer]
    return Sample(
        id=record.id,
        input_ids=np.array(ids),
        labels=np.array(labels),
        prefix=prefix,
        target_rows=target_rows,
        ground_index=ground_index,
        coordinate=_coordinate(record, question, tokenizer),
    )


def build_query(
    record: Record, tokenizer: PreTrainedTokenizerBase, *, prompt: PromptStyle
) -> Query:
    """Return the evaluation question of a record, ending with the assistant's header.

    Raises:
        DataError: ``<coord>`` without a point.
    """
    question = _question_ids(record, tokenizer, prompt)
    return Query(
        id=record.id,
        input_ids=np.array(question + _encode(tokenizer, ASSISTANT)),
        prefix=shared_prefix(tokenizer, prompt, label_chat_tokens=False),
        coordinate=_coordinate(record, question, tokenizer),
    )
