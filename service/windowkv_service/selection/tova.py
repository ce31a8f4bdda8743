"""TOVA (arXiv 2401.06104): the last token's attention, averaged over all heads, decides for all heads of a layer.

Code consulted: schwartz-lab-NLP/TOVA, tova_cache.py; kvpress, tova_press.py (Apache-2.0).

What we do differently:
- TOVA drops one token per step, from the moment its cache is full. Here the prompt is read whole and its last token
  decides once.
- The last token itself stays, as in kvpress; TOVA does not insist on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from windowkv_service.selection.attention import observed_attention
from windowkv_service.selection.base import Observation
from windowkv_service.selection.token_scorer import Protected, protect
from windowkv_service.selection.token_selector import TokenSelector


@dataclass(frozen=True)
class TOVA:
    observation_size: int = 1

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        num_kv_heads = observation.layout.num_kv_heads
        return {
            layer: observed_attention(observation, layer, 1).mean(dim=0).expand(num_kv_heads, -1)
            for layer in layers
        }

    def protected(self, num_tokens: int, count: int) -> Protected:
        return protect(num_tokens, count, last=1)


def tova() -> TokenSelector:
    return TokenSelector("tova", TOVA(), heads="all")
