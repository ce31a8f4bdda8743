"""Hearing the leaders: what the queries of the tokens that vote are, in a pass that ends when they have spoken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowkv_service.model.attention import LeadersHeard
from windowkv_service.model.prompt_attention import Terms
from windowkv_service.selection.question import QuestionProfile


class Listener:
    """Hears the leaders' queries of one sequence's last tokens, over as many passes as it takes.

    queries: leader layer → [num_heads, at most num_votes, head_dim].
    """

    def __init__(self, profile: QuestionProfile, num_votes: int) -> None:
        self._layers = frozenset(profile.layers)
        self.last_layer = max(self._layers)
        self._num_votes = num_votes
        self.queries: dict[int, Tensor] = {}
        self.terms: dict[int, Terms] = {}

    def hear(self, layer: int, queries: Tensor, terms: Terms) -> None:
        """queries [num_heads, m, head_dim] of m tokens more."""
        if layer in self._layers:
            seen = self.queries.get(layer)
            joined = queries if seen is None else torch.cat([seen, queries], dim=1)
            self.queries[layer] = joined[:, -self._num_votes :]
            self.terms[layer] = terms


class Audience:
    """The listeners of one pass, one for each sequence of its batch; it ends when all have heard their last leader."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._last_layer = max(listener.last_layer for listener in listeners)

    def __call__(self, layer: int, queries: Tensor, terms: Terms) -> None:
        """queries [B, num_heads, m, head_dim]."""
        for listener, own in zip(self._listeners, queries, strict=True):
            listener.hear(layer, own, terms)
        if layer == self._last_layer:
            raise LeadersHeard
