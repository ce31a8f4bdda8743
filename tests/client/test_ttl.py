"""How people write a life."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowkv_client import BadTtl
from windowkv_client._calls import create_cache
from windowkv_client._ttl import ttl_seconds


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90s", 90.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("7d", 604800.0),
        ("1d2h3m4s", 93784.0),
        (" 2H ", 7200.0),
        ("45", 45.0),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_a_ttl_is_read(ttl: float | str | timedelta, seconds: float) -> None:
    assert ttl_seconds(ttl) == seconds


@pytest.mark.parametrize("ttl", ["", "h", "1x", "1h 30m", "30m1h", "one hour", "-"])
def test_what_cannot_be_read_is_refused(ttl: str) -> None:
    with pytest.raises(ValueError, match="ttl"):
        ttl_seconds(ttl)


@pytest.mark.parametrize("ttl", [float("nan"), float("inf"), 1e30, "1e999", "soon"])
def test_a_ttl_that_no_message_can_carry_is_refused_as_the_service_would(ttl: float | str) -> None:
    with pytest.raises(BadTtl) as raised:
        create_cache("text", ttl=ttl)
    assert raised.value.field == "cache.ttl"


@given(st.integers(0, 9999), st.integers(0, 99), st.integers(0, 99))
def test_parts_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert ttl_seconds(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds
