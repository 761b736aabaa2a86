"""The vocabulary of a student: its tokenizer, the two added tokens, and their embedding rows."""

from pathlib import Path

from torch import Tensor
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config

from threedrs.errors import CheckpointError
from threedrs.tasks.record import COORD, END, GROUND, START

FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: its files are missing or damaged, or it does not know the chat tokens.
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
    if missing:
        raise CheckpointError(f"{folder}: the tokenizer lacks {missing[0]}; is it Qwen2's?")
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Add ``<ground>`` and ``<coord>``; return whether they were new.

    Raises:
        CheckpointError: the tokenizer has one of them but not the other.
    """
    tokens = [AddedToken(token, normalized=False, special=False) for token in (GROUND, COORD)]
    added = tokenizer.add_tokens(tokens)
    if added == 1:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the tokenizer has only one of {GROUND} and {COORD}"
        )
    return added == 2


def with_mean_rows(embedding_TD: Tensor, tokens: int) -> Tensor:
    """Return the matrix with rows ``tokens`` and ``tokens + 1`` set to the mean of those before.

    Later rows, which pad published matrices, stay; a matrix that is too short grows.
    """
    rows = max(len(embedding_TD), tokens + 2)
    result_TD = embedding_TD.new_zeros(rows, embedding_TD.shape[1])
    result_TD[: len(embedding_TD)] = embedding_TD
    result_TD[tokens : tokens + 2] = embedding_TD[:tokens].float().mean(0).to(embedding_TD.dtype)
    return result_TD
