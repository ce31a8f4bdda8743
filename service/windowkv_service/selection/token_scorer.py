"""What a method says about single tokens; budget and head sharing are choices of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from windowkv_service.selection.base import Observation


class Protected(NamedTuple):
    """How many of a prompt's first and last tokens stay whatever they score."""

    num_first: int
    num_last: int


def protect(num_tokens: int, count: int, *, first: int = 0, last: int = 0) -> Protected:
    """first and last, or less: never more than half of what a list keeps, so that scores always decide something."""
    most = min(num_tokens, max(1, count // 2))
    num_first = min(first, most)
    return Protected(num_first, min(last, most - num_first))


class TokenScorer(Protocol):
    """Scores the tokens of a prompt. Holds no state."""

    @property
    def observation_size(self) -> int:
        """As in Selector."""

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """layer → fp32 [num_kv_heads, num_tokens], finite; higher stays."""

    def protected(self, num_tokens: int, count: int) -> Protected:
        """What stays of a list of count tokens whatever it scores; at most half of count, or one token."""
