"""Sizes of passes and the bytes that they keep, against numbers worked out by hand."""

import pytest

from threedrs.models.backbones.llava import LlavaFamily
from threedrs.models.pass_sizes import kept_bytes, rounded_rows, rounded_width
from threedrs.models.token_passes import KEPT_CELLS


def test_few_sizes_hold_all() -> None:
    assert [rounded_rows(count) for count in (1, 2, 3, 5, 9, 16, 17, 66, 72)] == [
        *(1, 2, 4, 8, 16, 16, 24, 72, 72)
    ]
    assert [rounded_width(tokens) for tokens in (1, 64, 65, 128, 129)] == [64, 64, 128, 128, 256]


def test_at_7b_less_than_the_said_gigabytes_are_kept() -> None:
    text = LlavaFamily.new("7b", tokens=0, grid=14).text_config
    assert kept_bytes(text, 6744, [(1, 1)], 2) / 1e9 == pytest.approx(0.387, abs=1e-3)
    cells = kept_bytes(text, 0, [(KEPT_CELLS // 64, 64)], 2) - kept_bytes(text, 0, [(1, 64)], 2)
    # 256 rows of 64 cells of 57,344 bytes, and a byte for each of 152,064 words, without one row.
    assert cells / 1e9 == pytest.approx(255 * (64 * 57344 + 152064) / 1e9, abs=1e-3)
