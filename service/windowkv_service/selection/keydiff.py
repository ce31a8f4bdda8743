"""KeyDiff (arXiv 2504.15364): tokens stay whose keys differ most from the mean direction of all keys.

Code consulted: kvpress, keydiff_press.py (Apache-2.0).

A token's score is -cos(k, mean of k/|k|), of keys after RoPE, per KV head; no query is looked at.

What we do differently: the paper compresses block by block while it reads; here the whole prompt is compared once.
Nothing is kept for its position: of a question at the prompt's end most tokens go with the rest
(benchmarks/results/visible.md). The built-in model then still finds the answer, but not where it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from windowkv_service.selection.base import Observation
from windowkv_service.selection.token_scorer import Protected
from windowkv_service.selection.token_selector import TokenSelector


@dataclass(frozen=True)
class KeyDiff:
    observation_size: int = 0

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        return {layer: _difference(observation.keys(layer).float()) for layer in layers}

    def protected(self, num_tokens: int, count: int) -> Protected:
        return Protected(0, 0)


def _difference(keys: Tensor) -> Tensor:
    """keys [n, num_kv_heads, head_dim] → [num_kv_heads, n]."""
    anchor = normalize(keys, dim=-1).mean(dim=0, keepdim=True)
    return -cosine_similarity(keys, anchor, dim=-1).t()


def keydiff() -> TokenSelector:
    return TokenSelector("keydiff", KeyDiff())
