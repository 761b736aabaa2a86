"""A tokenizer that lacks a token of the chat is refused where it is loaded."""

from pathlib import Path
from typing import Any

import pytest

from threedrs.errors import CheckpointError
from threedrs.io.files import read_json, write_json
from threedrs.models.tokenizer import load_tokenizer, save_tokenizer, tiny_tokenizer

NEWLINE = "Ċ"  # its stand-in in a byte-level vocabulary


def without(token: str, vocabulary: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in vocabulary.items() if token not in name}


def strip_newline(whole: dict[str, Any]) -> None:
    model = whole["model"]
    model["vocab"] = without(NEWLINE, model["vocab"])
    model["merges"] = [pair for pair in model["merges"] if NEWLINE not in pair]


def strip_end(whole: dict[str, Any]) -> None:
    whole["added_tokens"] = [one for one in whole["added_tokens"] if one["content"] != "<|im_end|>"]


@pytest.mark.parametrize(
    ("strip", "lacks"),
    [(strip_newline, "a token for the newline"), (strip_end, r"<\|im_end\|>")],
)
def test_what_the_chat_needs(strip: Any, lacks: str, tmp_path: Path) -> None:
    save_tokenizer(tiny_tokenizer(), tmp_path)
    assert load_tokenizer(tmp_path).encode("\n") == [198]
    for name in ("special_tokens_map.json", "tokenizer_config.json", "added_tokens.json"):
        (tmp_path / name).unlink()
    whole = read_json(tmp_path / "tokenizer.json")
    strip(whole)
    write_json(tmp_path / "tokenizer.json", whole)
    with pytest.raises(CheckpointError, match=f"lacks {lacks}; is it Qwen2's"):
        load_tokenizer(tmp_path)
