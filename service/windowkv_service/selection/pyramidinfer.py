"""PyramidInfer (arXiv 2405.12532): from layer to layer fewer tokens are computed at all.

Code consulted: mutonix/pyramidinfer, modeling_llama_pyramidinfer.py (no licence: read, not copied).

In each layer the last 1 + 20 % of the prompt look back; later ones count more, linearly up to 1.2; their attention,
averaged over all heads, ranks the tokens before them. The first four stay. Layer l of L passes on the share r_l =
(1 - ρ) (cos(π l / L) + 1) / 2 + ρ of the context that reached it, ρ = 0.9; what it drops no deeper layer computes.
All heads keep the same tokens.

This file holds the arithmetic; the layers are walked by the engine, since what is dropped must never be computed:

    counts = method.keeps(layout, num_tokens, budget_bytes)     # one per selectable layer, never rising
    per layer: run it on the tokens that are left; of their score(queries, keys) the best counts[layer] survive, in it
    and in the layers after it

What we do differently:
- The published ratios keep 72 to 78 % of a prompt's cache. Here they give the shape and the budget gives the level:
  layer l keeps the product of its and all earlier ratios, times what makes the whole fit.
- A layer stores what it passes on; the code stores what reached it, one layer's drop more.
- The recent tokens are never more than half of what a layer keeps; the published 20 % may be more than the budget.
- Far below those ratios the first layer drops what no layer has found yet, and none after it can: answers are right as
  often as the first layer happens to pass them on, whoever looks back (benchmarks/results/visible.md).
- Answers' tokens are not compressed; the code thins them out, 16 at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import cos, pi
from operator import mul
from typing import ClassVar

import torch
from torch import Tensor

from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.attention import attention_received
from windowkv_service.selection.budgets import Claim, grant
from windowkv_service.selection.token_scorer import Protected, protect
from windowkv_service.selection.token_selector import ranking, sliding_bytes


@dataclass(frozen=True)
class PyramidInfer:
    """decay: ρ, of the deepest layers. recent_share: so many last tokens look back. distance_weight: what the very
    last one counts, the first of them counting 1."""

    chooses_tokens: ClassVar[bool] = True

    name: str = "pyramidinfer"
    decay: float = 0.9
    recent_share: float = 0.2
    distance_weight: float = 1.2
    num_sinks: int = 4

    def keeps(self, layout: KVLayout, num_tokens: int, budget_bytes: int) -> tuple[int, ...]:
        """Tokens that each selectable layer keeps, first to last, in whole packed blocks within the budget (one block
        each at least)."""
        num_layers = sum(len(group.layers) for group in layout.selectable_groups)
        block_bytes = layout.strip_bytes * layout.num_kv_heads
        claims = [
            Claim(share, block_bytes, 1, layout.num_windows(num_tokens)) for share in self.shares(num_layers)
        ]
        blocks = grant(claims, budget_bytes - sliding_bytes(layout, num_tokens), redistribute=True)
        return tuple(min(num_tokens, count * layout.window_size) for count in accumulate(blocks, min))

    def shares(self, num_layers: int) -> tuple[float, ...]:
        """What the published ratios leave after each layer, as a share of the context."""
        ratios = [
            (1 - self.decay) * (cos(pi * layer / num_layers) + 1) / 2 + self.decay
            for layer in range(num_layers)
        ]
        return tuple(accumulate(ratios, mul))

    def num_recent(self, num_tokens: int) -> int:
        """How many last tokens of a prompt look back."""
        return 1 + int(self.recent_share * num_tokens)

    def protected(self, num_recent: int, num_left: int, count: int) -> Protected:
        return protect(num_left, count, first=self.num_sinks, last=num_recent)

    def score(self, queries: Tensor, keys: Tensor, *, scale: float, softcap: float | None = None) -> Tensor:
        """What the tokens that are left get from the last m = num_recent(prompt) of them, or fewer where fewer are
        left: fp32 [tokens left].

        queries: [num_heads, m, head_dim]. keys: [tokens left, num_kv_heads, head_dim]; both after RoPE at the tokens'
        own positions.
        """
        weights = torch.linspace(1.0, self.distance_weight, queries.shape[1], device=keys.device)
        return attention_received(queries, keys, scale=scale, softcap=softcap, weights=weights).mean(dim=0)

    def survivors(self, score: Tensor, num_recent: int, count: int) -> Tensor:
        """Which of the tokens that are left stay: ascending places among them, count or all, on score's device."""
        num_left = score.shape[0]
        if count >= num_left:
            return torch.arange(num_left, device=score.device)
        order = ranking(score[None], self.protected(num_recent, num_left, count))[0]
        return order[:count].sort().values
