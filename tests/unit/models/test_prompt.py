import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.students import BOX_IDS, CAPTION, GROUNDING, TEXT, ZERO_TARGET, record, tokenizer
from threedrs.errors import DataError
from threedrs.models.packing import IGNORE, Sample
from threedrs.models.prompt import build_query, build_sample
from threedrs.models.tokenizer import tiny_tokenizer
from threedrs.tasks.record import Record

SENTENCE = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial "
    "relationships in the video and answer the following questions."
)
HEADER = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"


def _ids(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


def _sample(item: Record, label_chat_tokens: bool = True) -> Sample:
    return build_sample(item, BOX_IDS, tokenizer(), label_chat_tokens=label_chat_tokens)


def _assert_exact(question: str, answer: str) -> None:
    """Shared ids + own ids are the ids of the whole text, cut only where the pictures stand."""
    item = record(f"<image>{question}", answer)
    sample = _sample(item)
    end = f"{question}<|im_end|>\n<|im_start|>assistant\n"
    assert list(sample.prefix.before_ids) == _ids(HEADER)
    after = list(sample.prefix.after_ids) + sample.input_ids.tolist()
    assert after == _ids(f"\n{SENTENCE}\n{end}{answer}<|im_end|>\n")
    for prompt, start in (("as_trained", f"\n{SENTENCE}\n"), ("reference", "\n")):
        query = build_query(item, tokenizer(), prompt=prompt)  # type: ignore[arg-type]
        assert list(query.prefix.before_ids) == _ids(HEADER)
        assert list(query.prefix.after_ids) + query.input_ids.tolist() == _ids(start + end)


@pytest.mark.parametrize(
    "question",
    [
        " What color is the chair?",
        "Identify it.\nA red box.\nThere may be none.",
        "\n\nleading newlines",
        "\r\n x",
        "  two spaces",
        ". starts with a full stop",
        "...\n\n...",
        "",
        " ",
        "'s apostrophe",
        "\u0338 combining",
        "été 椅子 🪑",
        "9 o'clock\t\n",
    ],
)
def test_cut_is_exact(question: str) -> None:
    _assert_exact(question, "yes")


@settings(max_examples=200)
@given(
    st.text(st.sampled_from("ab .,!?'\n\r\t0é\u0301<|>"), max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
def test_cut_is_exact_for_any_text(question: str, answer: str) -> None:
    question, answer = (text.replace("<image>", "") for text in (question, answer))
    _assert_exact(question, answer)


def test_newline_and_special_tokens_have_ids_as_in_qwen2() -> None:
    assert _ids("\n") == [198]
    assert _ids("!") == [0]
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<ground>", "<coord>"]
    ids = tokenizer().convert_tokens_to_ids(names)
    assert ids == list(range(len(tokenizer()) - 5, len(tokenizer())))
    assert tokenizer().decode(_ids("The chair isn't red.\n")) == "The chair isn't red.\n"


def test_tokenizer_is_the_same_everywhere() -> None:
    vocabulary = json.dumps(tiny_tokenizer().get_vocab(), sort_keys=True)
    digest = hashlib.sha256(vocabulary.encode()).hexdigest()
    assert digest == "06cb590ba52aaca1f8cd197b37e91fd9e43e0f7377f9d018ed5b733e53b15b37", (
        "the tiny tokenizer has changed: earlier tiny checkpoints keep theirs"
    )


def test_labels_of_a_text_sample_by_hand() -> None:
    sample = _sample(record("<image> Is it red?", "No"))
    start, end = _ids("<|im_start|>"), _ids("<|im_end|>")
    full_stop, question = _ids(".\n"), _ids(" Is it red?")
    answer = [*start, *_ids("assistant"), 198, *_ids("No"), *end, 198]
    assert sample.input_ids.tolist() == [*full_stop, *question, *end, 198, *answer]
    unlabelled = [IGNORE] * len(full_stop + question)
    assert sample.labels.tolist() == [*unlabelled, *end, 198, *answer]

    prefix = sample.prefix
    labelled = {*start, *end, 198}
    before = [token if token in labelled else IGNORE for token in prefix.before_ids]
    # system header, its end, two line ends, user header and its line end
    assert sum(label != IGNORE for label in before) == 6
    after = [198, *[IGNORE] * (len(prefix.after_ids) - 1)]
    assert prefix.labels(3) == [*before, IGNORE, IGNORE, IGNORE, *after]


def test_a_merged_line_end_is_not_labelled() -> None:
    merged = _ids(".\n")
    sample = _sample(record("<image>One.\nTwo\nThree", "x"))
    pairs = list(zip(sample.input_ids.tolist(), sample.labels.tolist(), strict=True))
    if len(merged) == 1:  # the first newline went into the full stop, the second stands alone
        assert (merged[0], IGNORE) in pairs
        assert (198, IGNORE) not in pairs
    assert (198, 198) in pairs


def test_without_chat_tokens_only_the_assistant_turn_is_labelled() -> None:
    sample = _sample(record("<image> Is it red?", "No"), label_chat_tokens=False)
    labelled = [token for token in sample.labels.tolist() if token != IGNORE]
    assert labelled == _ids("<|im_start|>assistant\nNo<|im_end|>\n")
    assert set(sample.prefix.labels(0)) == {IGNORE}


def test_grounding_samples() -> None:
    sample = _sample(GROUNDING)
    assert sample.target_rows == [2, 0]  # ids 12 and 10 among 10, 11, 12, 13
    assert sample.ground_index is not None
    ground = tokenizer().convert_tokens_to_ids("<ground>")
    assert sample.input_ids[sample.ground_index] == ground
    assert set(sample.labels.tolist()) == {IGNORE}
    assert _sample(ZERO_TARGET).target_rows == []
    assert _sample(TEXT).target_rows is None


def test_coordinate_of_a_caption() -> None:
    for item in (_sample(CAPTION), build_query(CAPTION, tokenizer(), prompt="reference")):
        assert item.coordinate is not None
        index, point = item.coordinate
        assert point.tolist() == [0.5, -1.25, 0.75]
        coord = tokenizer().convert_tokens_to_ids("<coord>")
        assert item.input_ids[index] == coord
    assert _sample(TEXT).coordinate is None


def test_query_ends_with_the_assistants_header() -> None:
    query = build_query(TEXT, tokenizer(), prompt="reference")
    header = _ids("<|im_start|>assistant\n")
    assert query.input_ids.tolist()[-len(header) :] == header
    assert query.input_ids.dtype == np.int64


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (record("<image>x", "<ground>", object_ids=[99]), "object 99 has no box in scene0000_00"),
        (record("<image>x", "<ground>"), "needs object_ids"),
        (record("<image>at <coord> .", "x"), "no box_input"),
        (record("<image><coord> <coord>", "x", box_input=[0.0] * 6), "stands 2 times"),
    ],
)
def test_bad_records(item: Record, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _sample(item)
