"""How long a cache lives, as people write it: seconds, "90s", "1h30m", "7d" or a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta

Ttl = float | str | timedelta

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PART = r"(?:\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:({_PART})d)?(?:({_PART})h)?(?:({_PART})m)?(?:({_PART})s)?")


def ttl_seconds(ttl: Ttl) -> float:
    """ttl in seconds; whether it is a legal one is the service's to say. Raises ValueError on what it cannot read."""
    if isinstance(ttl, timedelta):
        return ttl.total_seconds()
    if not isinstance(ttl, str):
        return float(ttl)
    match = _DURATION.fullmatch(ttl.strip().lower())
    if match is None or not any(match.groups()):
        return _plain_number(ttl)
    return sum(
        float(part) * unit for part, unit in zip(match.groups(), _SECONDS.values(), strict=True) if part
    )


def _plain_number(ttl: str) -> float:
    try:
        return float(ttl)
    except ValueError:
        raise ValueError(f"ttl must be seconds or like '90s', '1h30m', '7d', not {ttl!r}") from None
