"""Quantities as text and back."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.documents.quantities import BANDWIDTH, DURATION, PERCENTAGE, RATE, SIZE, Quantity

ALL = (DURATION, RATE, BANDWIDTH, SIZE, PERCENTAGE)
quantities = st.sampled_from(ALL)


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (DURATION, "250ms", 0.25),
        (DURATION, "0.3ms", 0.0003),
        (DURATION, "1.5m", 90.0),
        (DURATION, "2 h", 7200.0),
        (DURATION, "0s", 0.0),
        (RATE, "500/s", 500.0),
        (BANDWIDTH, "100mbit", 1e8),
        (SIZE, "2kB", 2000.0),
        (SIZE, "2KiB", 2048.0),
        (PERCENTAGE, "99.9%", 0.999),
    ],
)
def test_text_means_a_value_in_base_units(quantity: Quantity, text: str, value: float) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    ("quantity", "value", "message"),
    [
        (DURATION, 250, "needs a unit: write 250ms or 250s"),
        (DURATION, "250", "needs a unit: write 250ms or 250s"),
        (DURATION, 10**400, "must be a duration such as 250ms or 20s, not 1000"),
        (DURATION, float("inf"), "must be a duration such as 250ms or 20s, not inf"),
        (DURATION, -5, "must be a duration such as 250ms or 20s, not -5"),
        (DURATION, "-5s", "must not be negative"),
        (DURATION, True, "not true"),
        (DURATION, [1], "not a list"),
        (DURATION, "5000h", "at most 1000h"),
        (DURATION, "٣s", "must be a duration"),
        (PERCENTAGE, "101%", "at most 100%"),
        (PERCENTAGE, 0.99, "a percentage needs a unit: which is meant, 99% or 0.99%?"),
        (PERCENTAGE, "0.99", "a percentage needs a unit: which is meant, 99% or 0.99%?"),
        (PERCENTAGE, 0.9995, "which is meant, 99.95% or 0.9995%?"),
        (PERCENTAGE, 1, "which is meant, 100% or 1%?"),
        (PERCENTAGE, 0.1, "which is meant, 10% or 0.1%?"),
        (PERCENTAGE, 99, "a percentage needs a unit: write 99%"),
        (PERCENTAGE, 99.9, "a percentage needs a unit: write 99.9%"),
        (PERCENTAGE, 0, "a percentage needs a unit: write 0%"),
        (PERCENTAGE, 250, "must be a percentage such as 99.9% or 1%, not 250"),
        (RATE, "5/min", "must be a rate such as 200/s"),
        (SIZE, "2kb", "must be a size such as 500B or 2kB, not '2kb'; did you mean 2kB?"),
        (SIZE, "4 KB", "did you mean 4kB?"),
        (SIZE, "4GB", "must be a size such as 500B or 2kB, not '4GB'"),
        (BANDWIDTH, "10Mbps", "must be a bandwidth such as 100mbit or 1gbit, not '10Mbps'"),
        (BANDWIDTH, "10Mbit", "did you mean 10mbit?"),
    ],
)
def test_a_wrong_quantity_is_refused_with_what_would_be_right(quantity: Quantity, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        quantity.parse(value)


@given(quantities, st.decimals(0, 100, places=9), st.data())
def test_what_is_parsed_is_written_so_that_it_parses_to_the_same(
    quantity: Quantity, number: object, data: st.DataObject
) -> None:
    unit = data.draw(st.sampled_from(list(quantity.units)))
    value = quantity.parse(f"{number:f}{unit}")
    assert quantity.parse(quantity.format(value)) == value


@given(quantities, st.text())
def test_any_text_is_a_value_or_a_value_error(quantity: Quantity, text: str) -> None:
    with contextlib.suppress(ValueError):
        assert quantity.parse(text) >= 0
