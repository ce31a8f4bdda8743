"""What every selector is given and must give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.kv.layout import KVLayout

Windows = tuple[int, ...]  # ascending, unique


@dataclass(frozen=True)
class Leader:
    """A layer whose attention chooses the windows of some layer groups.

    groups: indices into KVLayout.groups; together one selection group, a union of storage groups.
    """

    layer: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Observation:
    """What a finished prefill shows to a selector.

    queries: layer → [num_heads, α, head_dim], after RoPE, of the last α prompt tokens; α is the selector's
        observation_size, or num_tokens where the prompt is shorter.
    keys: layer → [num_tokens, num_kv_heads, head_dim], after RoPE, in GQA layout.
    scales, softcaps: what a layer's softmax is computed with; one without a soft cap is not in softcaps.
    """

    queries: Mapping[int, Tensor]
    keys: Callable[[int], Tensor]
    num_tokens: int
    scales: Mapping[int, float]
    layout: KVLayout
    softcaps: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowSelection:
    """windows: per layout group. task: which statistic ranked the windows; AUTO where none did.

    fidelity: share of the leaders' attention mass that falls into the chosen windows.
    """

    windows: tuple[Windows, ...]
    fidelity: float
    task: Task


class Selector(Protocol):
    """Chooses the windows of a prompt when it is prefilled. Holds no state; any thread may call it.

    select: the blocks of the chosen windows, over all groups, take at most budget_bytes, whole blocks
    counted. Sliding-window groups keep what the layout asks for, and are charged first. Windows that must
    stay (the last tokens', and what the selector never drops) stay even when they alone exceed the budget.
    """

    @property
    def name(self) -> str: ...

    @property
    def observation_size(self) -> int:
        """How many of the last prompt tokens' queries select wants to see; 0: none."""

    def observed_layers(self, layout: KVLayout) -> tuple[int, ...]:
        """The layers whose queries and keys select wants to see."""

    def select(self, observation: Observation, *, budget_bytes: int, task: Task) -> WindowSelection: ...
