"""What a generation_config.json says of greedy answers, against numbers worked out by hand."""

import json
from pathlib import Path

import pytest
import torch

from fixtures.students import tokenizer
from threedrs.errors import CheckpointError
from threedrs.models.checkpoint.decoding import Decoding, published_generation, read_generation


def test_seen_tokens_lose_a_twentieth_of_a_positive_logit_and_gain_one_of_a_negative() -> None:
    decoding = Decoding(ends=frozenset(), penalty=1.05)
    # 2.05 / 1.05 = 1.952 < 2, and -0.97 x 1.05 = -1.0185 < -1.
    logits = torch.tensor([[2.0, 2.05, -9], [-9, -0.97, -1.0], [2.0, 2.15, -9]])
    assert decoding.next_tokens(logits, None).tolist() == [1, 1, 1]
    seen = torch.tensor([[False, True, False]] * 3)
    assert decoding.next_tokens(logits, seen).tolist() == [0, 2, 1]
    assert logits[0, 1] == 2.05, "the caller's logits stay as they are"


def test_half_precision_logits_are_penalised_in_float32() -> None:
    # 1.0078125 is the bfloat16 number behind 1; over 1.001 it is 1.0068, which bfloat16 lacks.
    logits = torch.tensor([[1.0, 1.0078125]]).bfloat16()
    decoding = Decoding(ends=frozenset(), penalty=1.001)
    assert decoding.next_tokens(logits, torch.tensor([[False, True]])).tolist() == [1]


def test_published_values() -> None:
    end, end_of_text = tokenizer().convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    says = published_generation(tokenizer())
    assert says["eos_token_id"] == [end, end_of_text]
    assert Decoding.of("reference", None, tokenizer()) == Decoding(
        ends=frozenset({end, end_of_text}), penalty=1.05, most=None
    )
    assert Decoding.of("greedy", says, tokenizer()) == Decoding(ends=frozenset({end}))


@pytest.mark.parametrize(
    ("says", "ends", "penalty"),
    [
        ({"eos_token_id": 7}, {7}, 1.0),
        ({"eos_token_id": [7, 9], "repetition_penalty": 1.2, "do_sample": True}, {7, 9}, 1.2),
        ({"temperature": 0.7}, {1006}, 1.0),
        ({"eos_token_id": None, "repetition_penalty": None, "max_new_tokens": None}, {1006}, 1.0),
    ],
)
def test_values_of_a_folder(tmp_path: Path, says: dict, ends: set, penalty: float) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(says))
    found = Decoding.of("reference", read_generation(tmp_path, tokenizer()), tokenizer())
    assert (found.ends, found.penalty) == (ends, penalty)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repetition_penalty": 0},
        {"repetition_penalty": "1.05"},
        {"eos_token_id": [1, "x"]},
        {"max_new_tokens": -1},
        {"no_repeat_ngram_size": 3},
    ],
)
def test_values_that_cannot_be_followed(tmp_path: Path, wrong: dict) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(wrong))
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {next(iter(wrong))} is"):
        read_generation(tmp_path, tokenizer())


def test_a_folder_that_says_nothing_penalises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As transformers, which the published evaluation leaves it to; the line says so."""
    caplog.set_level("INFO")
    found = Decoding.of("reference", read_generation(tmp_path, tokenizer()), tokenizer())
    published = Decoding.of("reference", None, tokenizer())
    assert (found.penalty, published.penalty) == (1.0, 1.05)
    assert found.ends == published.ends
    assert "generation_config.json: missing, so repeated tokens are not penalised" in caplog.text
