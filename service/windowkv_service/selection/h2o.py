"""H2O, the heavy-hitter oracle (arXiv 2306.14048): half the tokens are those that all queries together looked at most,
half are the most recent.

Code consulted: FMInference/H2O, h2o_hf (README: MIT); kvpress, observed_attention_press.py (Apache-2.0).

What we do differently:
- H2O evicts one token per step: what is evicted gets no more attention, and later attention is spread over what is
  left. Here the whole prompt is read first, then the sums decide once, over the full attention. A token that only
  early queries liked, and that H2O would have evicted before later ones came, may stay; one that came to matter after
  H2O would have evicted it cannot be lost. Early tokens have been seen by more queries, which favours them in both.
- Sums are averaged over the query heads of a KV head, and KV heads are stored.
- Attention is summed in bounded chunks; no [heads, n, n] exists.
- The answer to one question is no heavy hitter of a long prompt: the few queries that look at it weigh nothing in a sum
  over all. Summed over the last 32 alone, the same rule finds it (benchmarks/results/visible.md).
- per_query divides a token's sum by how many queries saw it. kvpress's ObservedAttention does so, and keeps no recent
  half; H2O does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.selection.attention import observed_attention, per_kv_head
from windowkv_service.selection.base import ALL_QUERIES, Observation
from windowkv_service.selection.token_scorer import Protected, protect
from windowkv_service.selection.token_selector import TokenSelector


@dataclass(frozen=True)
class H2O:
    """keep_recent: half of a list is the most recent tokens."""

    observation_size: int = ALL_QUERIES
    per_query: bool = False
    keep_recent: bool = True

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        return {layer: self._score(observation, layer) for layer in layers}

    def protected(self, num_tokens: int, count: int) -> Protected:
        return protect(num_tokens, count, last=num_tokens if self.keep_recent else 0)

    def _score(self, observation: Observation, layer: int) -> Tensor:
        received = observed_attention(observation, layer, observation.num_tokens)
        if self.per_query:
            received /= torch.arange(observation.num_tokens, 0, -1, device=received.device)
        return per_kv_head(received, observation.layout.num_kv_heads)


def h2o() -> TokenSelector:
    return TokenSelector("h2o", H2O())
