"""Choices of windows that look at no attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

import windowkv_kernels as kernels
from windowkv_service.domain.requests import Task
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import Leader, Observation, WindowSelection
from windowkv_service.selection.choice import choose, last_windows
from windowkv_service.selection.fidelity import measured


@dataclass(frozen=True)
class BlindSelector(ABC):
    """Ranks the windows of each storage group without scores; the budget is uniform.

    Attention is looked at afterwards only, to say how much of it was captured. The last tokens always stay.
    """

    chooses_tokens: ClassVar[bool] = False

    name: str
    observation_size: int = 16

    @abstractmethod
    def rank(self, num_windows: int, group: int) -> Tensor:
        """[num_windows], higher stays."""

    @property
    def forced(self) -> frozenset[int]:
        return frozenset()

    def observed_layers(self, layout: KVLayout) -> tuple[int, ...]:
        return tuple(group.layers[0] for group in layout.selectable_groups)

    def select(self, observation: Observation, *, budget_bytes: int, task: Task) -> WindowSelection:
        layout, num_tokens = observation.layout, observation.num_tokens
        leaders = [Leader(group.layers[0], (group.index,)) for group in layout.selectable_groups]
        num_windows = layout.num_windows(num_tokens)
        windows = choose(
            layout,
            num_tokens,
            leaders,
            {leader.layer: self.rank(num_windows, leader.groups[0]) for leader in leaders},
            forced=self.forced | frozenset(last_windows(layout, num_tokens, self.observation_size)),
            shares=[1.0] * len(leaders),
            budget_bytes=budget_bytes,
        )
        masses = {leader.layer: _mass(observation, leader.layer) for leader in leaders}
        return measured(layout, leaders, masses, windows, Task.AUTO)


def _mass(observation: Observation, layer: int) -> Tensor:
    return kernels.score_windows(
        observation.queries[layer],
        observation.keys(layer),
        window_size=observation.layout.window_size,
        scale=observation.scales[layer],
        softcap=observation.softcaps.get(layer),
        lse=observation.lse.get(layer),
    ).mass
