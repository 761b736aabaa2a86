"""Sizes of passes, against numbers worked out by hand."""

from threedrs.models.pass_sizes import rounded_rows, rounded_width


def test_few_sizes_hold_all() -> None:
    assert [rounded_rows(count) for count in (1, 2, 3, 5, 9, 16, 17, 66, 72)] == [
        *(1, 2, 4, 8, 16, 16, 24, 72, 72)
    ]
    assert [rounded_width(tokens) for tokens in (1, 64, 65, 128, 129)] == [64, 64, 128, 128, 256]
