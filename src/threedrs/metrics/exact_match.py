r"""Exact match of short answers after SQA3D's normalisation.

The normalisation is a table of pattern and replacement, applied from top to bottom on the
lower-cased answer; the order matters for equality with published numbers.
Source: SQA3D (Ma et al., ICLR 2023, arXiv 2210.07474) as used by the 3D LLMs that report on it.
"""

import re
from collections.abc import Sequence

_MISSPELT = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "brigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
}
_BELOW_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FROM_TEN = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen")
_NUMBERS = (*_BELOW_TEN, *_FROM_TEN, "eighteen", "nineteen", "twenty")

NORMALISATION: tuple[tuple[str, str], ...] = (
    (r"^ +", ""),
    (r" +$", ""),
    (r" {2,}", " "),
    (r"[^a-zA-Z0-9,'\s\-:]+", ""),
    *((rf"\b{wrong}\b", right) for wrong, right in _MISSPELT.items()),
    (r"\bo' +clock\b", "o'clock"),
    (r"\bnone\b", "zero"),
    *((rf"\b{number}\b", word) for number, word in enumerate(_NUMBERS)),
    (r"\b23\b", "twenty-three"),
    (r"\b([a-zA-Z]+)[0-9]\b", r"\1"),
    (r"\ba ([a-zA-Z]+)", r"\1"),
    (r"\ban ([a-zA-Z]+)", r"\1"),
    (r"\bthe ([a-zA-Z]+)", r"\1"),
    (r"\bbackwards\b", "backward"),
)
_COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in NORMALISATION)


def normalise_answer(text: str) -> str:
    """Return the answer in SQA3D's normal form (lower case but for "TV")."""
    text = text.lower()
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    return text


def exact_match_normalised(prediction: str, references: Sequence[str]) -> bool:
    """Return whether the prediction equals one of the references after normalising both sides."""
    return normalise_answer(prediction) in {normalise_answer(text) for text in references}
