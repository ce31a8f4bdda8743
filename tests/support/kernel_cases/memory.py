"""Memory in which nothing can be mistaken for a result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def poisoned() -> Iterator[None]:
    """Whatever is allocated inside holds NaN, or the largest integer, until it is written."""
    was_on = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # with it torch fills what torch.empty gives
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on)
