"""The tokenizers of students: the tiny one, a checkpoint's, and the two tokens added to either.

The tiny tokenizer is a byte-level BPE in Qwen2's format. The 748 merges in ``tiny_merges.txt`` were
learnt from questions and answers about rooms. The bytes come first, in Qwen2's order, so that the
newline has the id 198 there too.
Tokenizers are saved in the form of transformers 4, which the published code reads and today's does.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import (
    AddedToken,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2Tokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from threedrs.errors import CheckpointError
from threedrs.io.files import read_json, read_text, write_json, write_text
from threedrs.tasks.record import COORD, END, GROUND, START

TINY_MERGES = Path(__file__).with_name("tiny_merges.txt")
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def tiny_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """Return the tiny tokenizer: bytes, merges, Qwen2's three special tokens, then ``more``."""
    pairs = [line.split() for line in read_text(TINY_MERGES).splitlines()]
    merges = [(left, right) for left, right in pairs]
    # The 256 printable stand-ins of the bytes, in GPT-2's and Qwen2's order.
    tokens = [*bytes_to_unicode().values()] + [left + right for left, right in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]
    special = [*SPECIAL_TOKENS[1:], *more]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: its files are missing or damaged, or it lacks a token of the chat.
    """
    # Without its files transformers would return an empty tokenizer, not an error.
    if not any(all((folder / name).is_file() for name in names) for names in FILES):
        raise CheckpointError(f"{folder}: tokenizer.json is missing; fetch the whole checkpoint")
    try:
        # Given a configuration, transformers does not warn that it has no model of this type.
        tokenizer = AutoTokenizer.from_pretrained(
            folder,
            config=Qwen2Config(),
            # Nor does it ask on the terminal whether to run a class that the folder brings along.
            trust_remote_code=False,
            local_files_only=True,
        )
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be loaded ({error!r}); fetch its files again"
        ) from error
    known = tokenizer.get_vocab()
    missing = [token for token in (START, END) if token not in known]
    if len(tokenizer.encode("\n", add_special_tokens=False)) != 1:
        missing.append("a token for the newline")
    if missing:
        raise CheckpointError(f"{folder}: the tokenizer lacks {missing[0]}; is it Qwen2's?")
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Add ``<ground>`` and ``<coord>``, and return whether they were new.

    Raises:
        CheckpointError: the tokenizer has one of them but not the other.
    """
    known = tokenizer.get_vocab()
    new = [token for token in (GROUND, COORD) if token not in known]
    if len(new) == 1:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the tokenizer has only one of {GROUND} and {COORD}"
        )
    # A trained tokenizer keeps its own two, whatever their flags: published ones are normalized,
    # and the library would count a token with another flag as a new one.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new])
    return bool(new)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer's files in the form that tokenizers 0.15 and transformers 4 read."""
    # The fast tokenizer is in tokenizer.json. The slow one of that time is built from vocab.json,
    # merges.txt and added_tokens.json.
    tokenizer.save_pretrained(folder)
    whole = read_json(folder / "tokenizer.json")
    model, added = whole["model"], whole["added_tokens"]
    # Today's library writes pairs, at which the older one ends with an error about ModelWrapper.
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    write_json(folder / "tokenizer.json", whole)
    write_json(folder / "vocab.json", model["vocab"])
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *model["merges"], ""]))
    write_json(folder / "added_tokens.json", {token["content"]: token["id"] for token in added})
    # The published evaluation unpacks this list into start and end of a turn.
    marks = {"additional_special_tokens": [START, END]}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    write_json(folder / "special_tokens_map.json", special | marks)
    config = read_json(folder / "tokenizer_config.json")
    for name in ("extra_special_tokens", "backend"):  # keys of transformers 5
        config.pop(name, None)
    decoder = {
        str(token["id"]): {name: token[name] for name in token if name != "id"} for token in added
    }
    write_json(folder / "tokenizer_config.json", config | marks | {"added_tokens_decoder": decoder})
