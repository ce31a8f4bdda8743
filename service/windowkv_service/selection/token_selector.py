"""Token methods are put together here: a scorer × a shape of the budget over layers × who shares a list or a budget.

Bytes are counted as they are stored: packed blocks, window_size tokens of one layer and one KV head each, the last one
of a list whole even where it is ragged. Lists are therefore granted whole blocks, and fill them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import ClassVar, Literal

import torch
from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.attention import observed_attention, per_kv_head
from windowkv_service.selection.base import Observation, TokenSelection
from windowkv_service.selection.budgets import Claim, LayerShape, Uniform, contend, grant
from windowkv_service.selection.token_scorer import Protected, TokenScorer

FIDELITY_TOKENS = 16  # so many last queries say how much attention was captured


@dataclass(frozen=True)
class TokenSelector:
    """Frozen, so that requests share nothing but these choices.

    shape: how the budget is laid over the layers.
    heads: each KV head keeps a list of its own, or all heads of a layer keep one, by the mean of their scores.
    adaptive: whose lists share one budget and contend for it with their scores: nobody's (all lists of a layer are
        equal), the heads' of a layer (AdaKV, arXiv 2407.11550), or the whole model's (KVzip; shape has no say then).
    floor: the share of an equal part that every contending list keeps; AdaKV's α.
    """

    chooses_tokens: ClassVar[bool] = True

    name: str
    scorer: TokenScorer
    shape: LayerShape = field(default_factory=Uniform)
    heads: Literal["each", "all"] = "each"
    adaptive: Literal["no", "heads", "model"] = "no"
    floor: float = 0.2

    @property
    def observation_size(self) -> int:
        return max(self.scorer.observation_size, FIDELITY_TOKENS)

    def observed_layers(self, layout: KVLayout) -> tuple[int, ...]:
        return tuple(layer for group in layout.selectable_groups for layer in group.layers)

    def select(self, observation: Observation, *, budget_bytes: int, task: Task) -> TokenSelection:
        layout, num_tokens = observation.layout, observation.num_tokens
        layers = self.observed_layers(layout)
        if not layers:
            return TokenSelection({}, 1.0, Task.AUTO)
        scored = self.scorer.score(observation, layers)
        scores = [self._shared(scored[layer]) for layer in layers]  # each [lists, num_tokens]
        counts = self._counts(scores, layout, num_tokens, budget_bytes - sliding_bytes(layout, num_tokens))
        tokens: dict[tuple[int, int], Tensor] = {}
        for layer, score, per_list in zip(layers, scores, counts, strict=True):
            kept = best_tokens(score, [blocks * layout.window_size for blocks in per_list], self.scorer)
            for head in range(layout.num_kv_heads):
                tokens[layer, head] = kept[min(head, len(kept) - 1)]
        return TokenSelection(tokens, captured_share(observation, tokens), Task.AUTO)

    def _shared(self, scores: Tensor) -> Tensor:
        return scores if self.heads == "each" else scores.mean(dim=0, keepdim=True)

    def _counts(
        self, scores: Sequence[Tensor], layout: KVLayout, num_tokens: int, budget_bytes: int
    ) -> list[list[int]]:
        """Blocks per layer and list, at least one each."""
        num_lists = scores[0].shape[0]
        unit = packed_block_bytes(layout) * (
            layout.num_kv_heads // num_lists
        )  # one block for each head of a list
        num_blocks = layout.num_windows(num_tokens)
        if self.adaptive == "model":
            total = min(
                max(budget_bytes // unit, len(scores) * num_lists), len(scores) * num_lists * num_blocks
            )
            flat = self._contend(torch.cat(list(scores)), total, layout.window_size)
            return [flat[start : start + num_lists] for start in range(0, len(flat), num_lists)]
        mean_tokens = max(0, budget_bytes) * layout.window_size / (unit * num_lists * len(scores))
        shares = self.shape.shares(len(scores), mean_tokens, num_tokens)
        if self.adaptive == "heads":
            claims = [Claim(share, unit, num_lists, num_lists * num_blocks) for share in shares]
            totals = grant(claims, budget_bytes, redistribute=True)
            return [
                self._contend(score, total, layout.window_size)
                for score, total in zip(scores, totals, strict=True)
            ]
        claims = [Claim(share, unit, 1, num_blocks) for share in shares for _ in range(num_lists)]
        flat = grant(claims, budget_bytes, redistribute=True)
        return [flat[start : start + num_lists] for start in range(0, len(flat), num_lists)]

    def _contend(self, scores: Tensor, total_blocks: int, block_tokens: int) -> list[int]:
        """What each list of scores [lists, num_tokens] wins of total_blocks."""
        num_lists, num_tokens = scores.shape
        mean_blocks = total_blocks / num_lists
        protected = self.scorer.protected(num_tokens, int(mean_blocks * block_tokens))
        least = max(1, int(self.floor * mean_blocks), ceil(sum(protected) / block_tokens))
        ranked = scores.gather(1, ranking(scores, protected))
        return contend(ranked, total_blocks, block_tokens=block_tokens, least=least)


def ranking(scores: Tensor, protected: Protected) -> Tensor:
    """Per list, all positions [lists, num_tokens]: the protected ones, then by score; of equals the earlier first."""
    boosted = scores.clone()
    boosted[:, : protected.num_first] = float("inf")
    boosted[:, scores.shape[1] - protected.num_last :] = float("inf")
    return torch.sort(boosted, dim=1, descending=True, stable=True).indices


def best_tokens(scores: Tensor, counts: Sequence[int], scorer: TokenScorer) -> list[Tensor]:
    """Per list, the count best positions, ascending, on the CPU. A count beyond the prompt means all of it."""
    num_tokens = scores.shape[1]
    kept = []
    for score, count in zip(scores, counts, strict=True):
        order = ranking(score[None], scorer.protected(num_tokens, min(count, num_tokens)))[0]
        kept.append(order[:count].sort().values.cpu())
    return kept


def packed_block_bytes(layout: KVLayout) -> int:
    """K and V of window_size tokens of one layer and one KV head."""
    return 2 * layout.window_size * layout.head_dim * layout.itemsize


def sliding_bytes(layout: KVLayout, num_tokens: int) -> int:
    """What the groups take that nothing is selected for."""
    return sum(
        len(layout.full_windows(group, num_tokens)) * layout.block_bytes(group)
        for group in layout.groups
        if not group.is_selectable
    )


def captured_share(observation: Observation, tokens: Mapping[tuple[int, int], Tensor]) -> float:
    """Share of the last queries' attention that falls on tokens; every layer and KV head counts alike."""
    captured, layers = 0.0, sorted({layer for layer, _ in tokens})
    for layer in layers:
        received = observed_attention(observation, layer, FIDELITY_TOKENS)
        shares = per_kv_head(received, observation.layout.num_kv_heads)
        shares = shares / shares.sum(dim=1, keepdim=True)
        for head, share in enumerate(shares):
            kept = tokens[layer, head]
            is_all = kept.numel() == observation.num_tokens  # then exactly 1, not 1 but for rounding
            captured += 1.0 if is_all else min(1.0, float(share[kept.to(share.device)].sum()))
    return captured / len(tokens) if tokens else 1.0
