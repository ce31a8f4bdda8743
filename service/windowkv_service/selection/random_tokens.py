"""Tokens by lot, each KV head its own: what a method that chooses per head must beat at equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.selection.base import Observation
from windowkv_service.selection.token_scorer import Protected
from windowkv_service.selection.token_selector import TokenSelector


@dataclass(frozen=True)
class Lots:
    """The same lots for the same prompt length and seed, on any device."""

    seed: int = 0
    observation_size: int = 0

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        return {layer: self._draw(observation, layer) for layer in layers}

    def protected(self, num_tokens: int, count: int) -> Protected:
        return Protected(0, 0)

    def _draw(self, observation: Observation, layer: int) -> Tensor:
        seed = self.seed * 1_000_003 + observation.num_tokens * 1009 + layer
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(observation.layout.num_kv_heads, observation.num_tokens, generator=generator)


def random_tokens() -> TokenSelector:
    return TokenSelector("random-tokens", Lots())
