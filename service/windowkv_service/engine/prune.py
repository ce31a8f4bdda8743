"""PREFILL by a method that chooses on the way: what a layer drops, the layers after it never compute.

What is kept is then not the KV that the full prefill of the prompt would have made: it is addressed by the choice, no
other cache shares it, and it is made again by dropping the same tokens at the same layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.domain.results import PrefillProgress
from windowkv_service.engine.prompt import Prompt
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.task import TURN, Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.layout import KVGroup, KVLayout
from windowkv_service.kv.strips import Strips
from windowkv_service.model.prompt_attention import Terms
from windowkv_service.model.pruned_view import Survive
from windowkv_service.selection.base import Pruner, TokenSelection

OnProgress = Callable[[PrefillProgress], None]


class Pruning:
    """One prompt's way through the layers. Full-attention layers that own their KV choose; the others pass on what
    reached them, and keep of it what a later token can still see."""

    def __init__(self, pruner: Pruner, layout: KVLayout, num_tokens: int, budget_bytes: int) -> None:
        self._pruner = pruner
        self._layout = layout
        self._num_tokens = num_tokens
        layers = [layer for group in layout.selectable_groups for layer in group.layers]
        self._counts = dict(zip(sorted(layers), pruner.keeps(layout, num_tokens, budget_bytes), strict=True))
        self._tokens: dict[tuple[int, int], Tensor] = {}
        self._captured: list[float] = []

    def __call__(self, layer: int, positions: Tensor, queries: Tensor, keys: Tensor, terms: Terms) -> Tensor:
        group = self._layout.groups[self._layout.places[layer][0]]
        survivors = torch.arange(len(positions), device=positions.device)
        if layer in self._counts:
            survivors = self._choose(layer, positions, queries, keys, terms)
        kept = positions[survivors]
        self._keep(layer, kept[kept >= _first_seen(self._layout, group, self._num_tokens)])
        return survivors

    def _choose(self, layer: int, positions: Tensor, queries: Tensor, keys: Tensor, terms: Terms) -> Tensor:
        recent = positions >= self._num_tokens - self._pruner.num_recent(self._num_tokens)
        score = self._pruner.score(queries[:, recent], keys, scale=terms.scale, softcap=terms.softcap)
        survivors = self._pruner.survivors(score, int(recent.sum()), self._counts[layer])
        is_all = len(survivors) == len(positions)  # then exactly 1, not 1 but for rounding
        self._captured.append(1.0 if is_all else float(score[survivors].sum() / score.sum()))
        return survivors

    def _keep(self, layer: int, positions: Tensor) -> None:
        self._tokens.update(((layer, head), positions.cpu()) for head in range(self._layout.num_kv_heads))

    def selection(self) -> TokenSelection:
        """All that stays, of sliding-window layers too. fidelity: the mean over the layers that chose."""
        return TokenSelection(self._tokens, sum(self._captured) / len(self._captured), Task.AUTO)


def _first_seen(layout: KVLayout, group: KVGroup, num_tokens: int) -> int:
    return layout.full_windows(group, num_tokens).start * layout.window_size


def replay(strips: Strips) -> Survive:
    """Drop what was dropped when the strips were made."""
    layout = strips.layout
    kept = {
        layer: torch.tensor(strips.tokens[group.index][place * layout.num_kv_heads], dtype=torch.long)
        for group in layout.selectable_groups
        for place, layer in enumerate(group.layers)
    }

    def survive(layer: int, positions: Tensor, queries: Tensor, keys: Tensor, terms: Terms) -> Tensor:
        if layer not in kept:
            return torch.arange(len(positions), device=positions.device)
        return torch.isin(positions, kept[layer].to(positions.device)).nonzero().flatten()

    return survive


def prune(
    resources: Resources, prompt: Prompt, staging: Staging, survive: Survive, on_progress: OnProgress
) -> Walk[None]:
    """All of the prompt at once: which tokens a layer drops follows from the prompt's end."""
    on_progress(PrefillProgress(0, prompt.num_tokens, 0))
    yield TURN
    began = time.perf_counter()
    resources.runner.prefill_pruned(prompt.token_ids, staging, survive)
    resources.metrics.steps.stepped("prefill", prompt.num_tokens, time.perf_counter() - began)
    on_progress(PrefillProgress(prompt.num_tokens, prompt.num_tokens, 0))
