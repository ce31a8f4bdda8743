"""SnapKV (arXiv 2404.14469): the last tokens vote for the tokens before them; votes are pooled with their neighbours'.

Code consulted: FasterDecoding/SnapKV, snapkv_utils.py (Apache-2.0); kvpress, snapkv_press.py (Apache-2.0).

What we do differently:
- The official code repeats keys and values to all query heads, votes and stores per query head. Here the pooled votes
  of the query heads that read one KV head are averaged (SnapKV's issue 22, as kvpress does), and KV heads are stored.
- Defaults are those of the paper's LongBench runs: the last 32 tokens vote, maximum over 7 neighbours. kvpress: 64, and
  the mean over 5. The maximum is taken per query head, as in the paper, before heads are averaged.
- The voters stay, within the budget, as published; where they would fill more than half of what a head keeps, which
  the paper never runs, only the last of them do. All of them vote all the same.
- Kept tokens are in order of position, and the votes stay in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d, pad

from windowkv_service.selection.attention import observed_attention, per_kv_head
from windowkv_service.selection.base import Observation
from windowkv_service.selection.token_scorer import Protected, protect
from windowkv_service.selection.token_selector import TokenSelector


@dataclass(frozen=True)
class SnapKV:
    """window: so many last tokens vote, and stay. kernel: odd; so many neighbouring tokens are pooled."""

    window: int = 32
    kernel: int = 7
    pooling: Literal["max", "mean"] = "max"

    @property
    def observation_size(self) -> int:
        return self.window

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        return {layer: self._score(observation, layer) for layer in layers}

    def protected(self, num_tokens: int, count: int) -> Protected:
        return protect(num_tokens, count, last=self.window)

    def _score(self, observation: Observation, layer: int) -> Tensor:
        num_tokens, num_kv_heads = observation.num_tokens, observation.layout.num_kv_heads
        num_review = num_tokens - self.window
        if num_review <= 0:
            return torch.zeros(num_kv_heads, num_tokens, device=observation.queries[layer].device)
        votes = observed_attention(observation, layer, self.window)[:, :num_review] / self.window
        return pad(per_kv_head(self._pool(votes), num_kv_heads), (0, self.window))

    def _pool(self, votes: Tensor) -> Tensor:
        pool = max_pool1d if self.pooling == "max" else avg_pool1d
        pooled: Tensor = pool(votes[None], self.kernel, stride=1, padding=self.kernel // 2)[0]
        return pooled


def snapkv() -> TokenSelector:
    """As published, on KV heads: every list of every layer the same."""
    return TokenSelector("snapkv", SnapKV())
