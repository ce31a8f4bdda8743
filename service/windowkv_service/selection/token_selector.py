"""Token methods are put together here: a scorer × a shape of the budget over layers × who shares a list or a budget.

Bytes are counted as they are stored: strips (kv/strips.py), window_size tokens of one layer and one KV head each, the
last one of a list whole even where it is ragged. Lists are therefore granted whole strips, and fill them.
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
        for layer, score, own, equal in zip(layers, scores, counts, self._equal_parts(counts), strict=True):
            kept = best_tokens(score, own, [self.scorer.protected(num_tokens, count) for count in equal])
            for head in range(layout.num_kv_heads):
                tokens[layer, head] = kept[min(head, len(kept) - 1)]
        return TokenSelection(tokens, captured_share(observation, tokens), Task.AUTO)

    def _shared(self, scores: Tensor) -> Tensor:
        return scores if self.heads == "each" else scores.mean(dim=0, keepdim=True)

    def _counts(
        self, scores: Sequence[Tensor], layout: KVLayout, num_tokens: int, budget_bytes: int
    ) -> list[list[int]]:
        """Tokens per layer and list, in whole blocks, at least one each; beyond the prompt where a block is ragged."""
        num_lists, num_blocks = scores[0].shape[0], layout.num_windows(num_tokens)
        unit = layout.strip_bytes * (layout.num_kv_heads // num_lists)  # one block for each head of a list
        if self.adaptive == "model":
            every = len(scores) * num_lists
            total = min(max(budget_bytes // unit, every), every * num_blocks)
            return _rows(self._contend(torch.cat(list(scores)), total, layout), num_lists)
        mean_tokens = max(0, budget_bytes) * layout.window_size / (unit * num_lists * len(scores))
        shares = self.shape.shares(len(scores), mean_tokens, num_tokens)
        if self.adaptive == "heads":
            claims = [Claim(share, unit, num_lists, num_lists * num_blocks) for share in shares]
            totals = grant(claims, budget_bytes, redistribute=True)
            return [self._contend(score, total, layout) for score, total in zip(scores, totals, strict=True)]
        claims = [Claim(share, unit, 1, num_blocks) for share in shares for _ in range(num_lists)]
        blocks = grant(claims, budget_bytes, redistribute=True)
        return _rows([count * layout.window_size for count in blocks], num_lists)

    def _contend(self, scores: Tensor, total_blocks: int, layout: KVLayout) -> list[int]:
        """What tokens each list of scores [lists, num_tokens] wins of total_blocks."""
        num_lists, num_tokens = scores.shape
        mean_tokens = total_blocks * layout.window_size // num_lists
        protected = self.scorer.protected(num_tokens, mean_tokens)
        least = max(
            1, int(self.floor * (total_blocks / num_lists)), ceil(sum(protected) / layout.window_size)
        )
        ranked = scores.gather(1, ranking(scores, protected))
        blocks = contend(ranked, total_blocks, block_tokens=layout.window_size, least=least)
        return [count * layout.window_size for count in blocks]

    def _equal_parts(self, counts: Sequence[Sequence[int]]) -> list[list[int]]:
        """What every list would have of what it shares: contending lists protect the same tokens, whoever wins."""
        if self.adaptive == "no":
            return [list(row) for row in counts]
        pools = [[count for row in counts for count in row]] if self.adaptive == "model" else counts
        means = [sum(pool) // len(pool) for pool in pools] * (len(counts) // len(pools))
        return [[mean] * len(row) for mean, row in zip(means, counts, strict=True)]


def _rows(numbers: Sequence[int], size: int) -> list[list[int]]:
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def ranking(scores: Tensor, protected: Protected) -> Tensor:
    """Per list, all positions [lists, num_tokens]: the protected ones, then by score; of equals the earlier first."""
    boosted = scores.clone()
    boosted[:, : protected.num_first] = float("inf")
    boosted[:, scores.shape[1] - protected.num_last :] = float("inf")
    return torch.sort(boosted, dim=1, descending=True, stable=True).indices


def best_tokens(scores: Tensor, counts: Sequence[int], protected: Sequence[Protected]) -> list[Tensor]:
    """Per list of scores [lists, num_tokens] the count best positions, ascending, on the CPU, the protected ones first.
    A count beyond the prompt means all of it."""
    kept = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    for row, score, count, own in zip(kept, scores, counts, protected, strict=True):
        row[ranking(score[None], own)[0, :count]] = True
    return [row.nonzero()[:, 0] for row in kept.cpu()]  # one copy a layer


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
        shares = (shares / shares.sum(dim=1, keepdim=True)).cpu()
        for head, share in enumerate(shares):
            kept = tokens[layer, head]
            is_all = kept.numel() == observation.num_tokens  # then exactly 1, not 1 but for rounding
            captured += 1.0 if is_all else min(1.0, float(share[kept].sum()))
    return captured / len(tokens) if tokens else 1.0
