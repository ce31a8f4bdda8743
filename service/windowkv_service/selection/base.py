"""What every selector is given and must give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Never, Protocol, runtime_checkable

from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.kv.layout import KVLayout

Windows = tuple[int, ...]  # ascending, unique

ALL_QUERIES = 1 << 30  # the observation_size of a selector that wants every query: more than any prompt has


@dataclass(frozen=True)
class Leader:
    """A layer whose attention chooses the windows of some layer groups.

    groups: indices into KVLayout.groups; together one selection group, a union of storage groups.
    """

    layer: int
    groups: tuple[int, ...]


class Repeated(NamedTuple):
    """What one layer makes of tokens that are run behind the prompt.

    queries: [num_heads, m, head_dim]. keys: [m, num_kv_heads, head_dim]. Both after RoPE.
    """

    queries: Tensor
    keys: Tensor


def _unseen(*_: object) -> Never:
    raise LookupError("whoever made this observation does not show this part of the prompt")


@dataclass(frozen=True)
class Observation:
    """What a finished prefill shows to a selector.

    queries: layer → [num_heads, α, head_dim], after RoPE, of the last α prompt tokens; α is the selector's
        observation_size, or num_tokens where the prompt is shorter.
    keys: layer → [num_tokens, num_kv_heads, head_dim], after RoPE, in GQA layout.
    scales, softcaps: what a layer's softmax is computed with; one without a soft cap is not in softcaps.
    values: layer → [num_tokens, num_kv_heads, head_dim].
    rotary: positions [m] → (cos, sin), each [m, rotary_dim], of the half-split form of RoPE, which turns the first
        rotary_dim numbers of a head: x · cos + (-x₂, x₁) · sin. None where the model rotates otherwise, or not at all.
    token_ids: the prompt's.
    lse: layer → [num_heads, α] fp32, log Σ exp of each of these queries' logits over the tokens it sees, of the layers
        whose attention has told.
    repeat: run these tokens at positions num_tokens … over the whole prompt and keep nothing of them. Answers, for
        every layer of the selector's observed_layers, what it made of them. Every call starts anew behind the prompt.
    """

    queries: Mapping[int, Tensor]
    keys: Callable[[int], Tensor]
    num_tokens: int
    scales: Mapping[int, float]
    layout: KVLayout
    softcaps: Mapping[int, float] = field(default_factory=dict)
    values: Callable[[int], Tensor] = _unseen
    rotary: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    token_ids: Sequence[int] = ()
    lse: Mapping[int, Tensor] = field(default_factory=dict)
    repeat: Callable[[Sequence[int]], Mapping[int, Repeated]] = _unseen


@dataclass(frozen=True)
class Attention:
    """Where the leaders looked. masses: leader layer → [num_windows], summing to 1."""

    leaders: tuple[Leader, ...]
    masses: Mapping[int, Tensor]


@dataclass(frozen=True)
class WindowSelection:
    """windows: per layout group. task: which statistic ranked the windows; AUTO where none did.

    fidelity: share of the leaders' attention mass that falls into the chosen windows.
    attention: what fidelity was taken from; None where nothing was dropped.
    """

    windows: tuple[Windows, ...]
    fidelity: float
    task: Task
    attention: Attention | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class TokenSelection:
    """tokens: (layer, KV head) → ascending positions that stay, int64 on the CPU, never empty; for every selectable
        layer that owns its KV. Sliding-window layers keep what the layout asks for.
    fidelity, task: as in WindowSelection, each layer and KV head counting alike.
    """

    tokens: Mapping[tuple[int, int], Tensor]
    fidelity: float
    task: Task


Selection = WindowSelection | TokenSelection


@runtime_checkable
class Pruner(Protocol):
    """Chooses while a prompt is prefilled: tokens that a layer drops are computed by no layer after it. All KV heads of
    a layer keep the same. Holds no state."""

    @property
    def name(self) -> str: ...

    @property
    def chooses_tokens(self) -> bool:
        """It does."""

    def keeps(self, layout: KVLayout, num_tokens: int, budget_bytes: int) -> tuple[int, ...]:
        """Tokens that each selectable layer keeps, first to last, never rising."""

    def num_recent(self, num_tokens: int) -> int:
        """How many last tokens of a prompt look back."""

    def score(self, queries: Tensor, keys: Tensor, *, scale: float, softcap: float | None = None) -> Tensor:
        """What each token that is left gets from the recent ones among them: fp32 [tokens left].

        queries: [num_heads, m, head_dim] of the recent ones. keys: [tokens left, num_kv_heads, head_dim].
        """

    def survivors(self, score: Tensor, num_recent: int, count: int) -> Tensor:
        """Which of the tokens that are left stay: ascending places among them, at most count."""


class Selector(Protocol):
    """Chooses what stays of a prompt when it is prefilled. Holds no state; any thread may call it.

    select: whole windows of layer groups, or single tokens of each layer and KV head.
        Windows: the blocks of the chosen windows, over all groups, take at most budget_bytes, whole blocks counted.
        Windows that must stay (the last tokens', and what the selector never drops) stay even when they alone exceed
        the budget, unless the selector says that they give way; one window stays in any case. Tokens: the same of
        packed blocks, which hold window_size tokens of one layer and one KV head; every list keeps one block's worth
        even when these alone exceed the budget. Sliding-window groups keep what the layout asks for, and are charged
        first.
    """

    @property
    def name(self) -> str: ...

    @property
    def observation_size(self) -> int:
        """How many of the last prompt tokens' queries select wants to see; 0: none; ALL_QUERIES: every one."""

    @property
    def chooses_tokens(self) -> bool:
        """Single tokens stay, not windows: no question chooses among them again."""

    def observed_layers(self, layout: KVLayout) -> tuple[int, ...]:
        """The layers whose queries and keys select wants to see."""

    def select(self, observation: Observation, *, budget_bytes: int, task: Task) -> Selection: ...


Method = Selector | Pruner
