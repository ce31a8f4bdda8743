"""A method for tests that keeps the tokens it is told to, each layer and KV head its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.engine.resources import Resources
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection import Observation, TokenSelection

Choice = Callable[[int, int, int], list[int]]  # layer, KV head, number of tokens → ascending positions


def everything(layer: int, head: int, num_tokens: int) -> list[int]:
    return list(range(num_tokens))


def by_lot(layer: int, head: int, num_tokens: int) -> list[int]:
    """Lists of different lengths, none of them empty."""
    draw = random.Random(layer * 1009 + head)
    share = draw.uniform(0.1, 0.6)
    return [n for n in range(num_tokens) if draw.random() < share] or [num_tokens - 1]


@dataclass(frozen=True)
class ChosenTokens:
    name: str
    choice: Choice
    chooses_tokens: ClassVar[bool] = True
    observation_size: int = 0

    def observed_layers(self, layout: KVLayout) -> tuple[int, ...]:
        return ()

    def select(self, observation: Observation, *, budget_bytes: int, task: Task) -> TokenSelection:
        layout, num_tokens = observation.layout, observation.num_tokens
        tokens: dict[tuple[int, int], Tensor] = {
            (layer, head): torch.tensor(self.choice(layer, head, num_tokens))
            for group in layout.selectable_groups
            for layer in group.layers
            for head in range(layout.num_kv_heads)
        }
        return TokenSelection(tokens, 0.5, Task.AUTO)


def offer(resources: Resources) -> None:
    """Let the worker have both choices as methods."""
    methods = dict(resources.selectors)
    for choice in (everything, by_lot):
        methods[choice.__name__] = ChosenTokens(choice.__name__, choice)
    resources.selectors = methods
    resources.info = replace(resources.info, methods=tuple(methods))
