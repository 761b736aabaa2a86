"""Sizes rounded up, so that few are met, and what a pass over next tokens reads and changes.

Axis letters: R rows (questions, rounded up), T own tokens for which a row has cells, K key heads, G
query heads a key head, d head size, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WIDTH = 64  # cells of the shortest row


def power_of_two(number: int, least: int) -> int:
    """Return the least power of two that is neither below ``number`` nor below ``least``."""
    return max(least, 1 << (number - 1).bit_length())


def rounded_tokens(tokens: int, least: int) -> int:
    """Return ``tokens`` rounded up by an eighth at most, or to a multiple of ``least``.

    It is a multiple of ``least`` and of a sixteenth of the next power of two.
    """
    unit = max(least, 1 << tokens.bit_length() >> 4)
    return -(-tokens // unit) * unit


def rounded_rows(questions: int) -> int:
    """Return the rows for this many questions: a power of two, or a multiple of 8."""
    return power_of_two(questions, 1) if questions <= 8 else -(-questions // 8) * 8


def rounded_width(tokens: int) -> int:
    """Return the cells of a row for this many own tokens: a power of two, at least `WIDTH`."""
    return power_of_two(tokens, WIDTH)


@dataclass(kw_only=True)
class PassState:
    """The numbers of R answers between two passes."""

    token_R: Tensor  # the last token
    position_XR: Tensor  # where it stands, as the rotary embedding counts: X is (1,) or (3,1)
    column: Tensor  # (1,) the cell in which its key and value go, in every row the same
    bias_R1GT: Tensor  # 0 at cells that hold own tokens, otherwise -inf
    seen_RV: Tensor | None  # the words that the answer holds, if there is a penalty on them

    def rows(self, index: Tensor) -> "PassState":
        """Return a copy of these rows."""
        return PassState(
            token_R=self.token_R[index],
            position_XR=self.position_XR[..., index],
            column=self.column,
            bias_R1GT=self.bias_R1GT[index],
            seen_RV=None if self.seen_RV is None else self.seen_RV[index],
        )

    def room(self, rows: int, width: int) -> "PassState":
        """Return a state of this size that holds no answer."""
        seen_RV = self.seen_RV
        return PassState(
            token_R=self.token_R.new_zeros(rows),
            position_XR=self.position_XR.new_zeros(*self.position_XR.shape[:-1], rows),
            column=self.column.clone(),
            bias_R1GT=self.bias_R1GT.new_empty(rows, 1, self.bias_R1GT.shape[2], width),
            seen_RV=None if seen_RV is None else seen_RV.new_zeros(rows, seen_RV.shape[1]),
        )

    def take(self, other: "PassState") -> None:
        """Take over the numbers of at most as many answers, in the first rows."""
        rows, width = len(other.token_R), other.bias_R1GT.shape[-1]
        self.token_R[:rows] = other.token_R
        self.position_XR[..., :rows] = other.position_XR
        self.column.copy_(other.column)
        self.bias_R1GT.fill_(-torch.inf)[:rows, ..., :width] = other.bias_R1GT
        if self.seen_RV is not None and other.seen_RV is not None:
            self.seen_RV[:rows] = other.seen_RV


@dataclass(kw_only=True)
class PassSize:
    """The passes of one size: their state, each layer's cells of keys and values, the recording."""

    state: PassState
    own_XRTKd: Tensor  # X: layer by layer its keys and its values
    ran: bool = False
    graph: torch.cuda.CUDAGraph | None = None
