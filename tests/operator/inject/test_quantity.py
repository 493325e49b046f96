"""Sums of quantities, as Kubernetes writes them."""

from __future__ import annotations

import pytest

from pulsecache_operator.inject.quantity import add, parse


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        ("1", "50m", "1050m"),
        ("950m", "50m", "1"),
        ("0.5", "1", "1500m"),
        ("1Gi", "96Mi", str(1120 * 1024 * 1024)),
        ("1G", "1Ki", "1000001024"),
        ("1e3", "0", "1000"),
        ("1E", "1", "1000000000000000001"),
        ("100u", "0", "1m"),
        (2, "1", "3"),
    ],
)
def test_a_sum_is_whole_or_in_thousandths_rounded_up(a: str | int, b: str, total: str) -> None:
    assert add(a, b) == total


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "1KiB", "one", "1e", "0x1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        parse(text)
