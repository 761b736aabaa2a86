"""Numbers as pages print them."""

import pytest

from threedrs.visualization.templates import page_environment, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.04, "+1.0"), (-1.06, "-1.1"), (-0.04, "0.0"), (0.0, "0.0"), (None, "–")],
)
def test_a_zero_has_no_sign(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0.0"), (-0.06, "-0.1"), (None, "–")])
def test_a_zero_has_no_sign_in_tables_either(value, text):
    template = page_environment("threedrs.report").from_string(
        "{% from 'macros.html.j2' import number %}{{ number(value) }}"
    )
    assert template.render(value=value) == text
