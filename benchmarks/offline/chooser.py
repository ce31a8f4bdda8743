"""Who decides what a question reads: the contract, and the two that no question moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from offline.choice import Choice, bytes_of, for_all_heads, tokens_of
from offline.document import CachedDocument


class Chooser(Protocol):
    """Decides for one row of a batch.

    passes: how often the question listens before it answers. reselect_every: the answer listens and chooses anew after
    so many tokens; 0: never. recent_voters: so many last tokens vote then.
    chooses_midway: no listening: the pass that answers chooses at the leader, for it and the layers above.
    layers: the leaders; their queries are what choose is given.
    """

    @property
    def passes(self) -> int: ...
    @property
    def chooses_midway(self) -> bool: ...
    @property
    def reselect_every(self) -> int: ...
    @property
    def vote_tokens(self) -> int: ...
    @property
    def recent_voters(self) -> int: ...
    @property
    def layers(self) -> tuple[int, ...]: ...

    def begin(self, document: CachedDocument, kept_ratio: float) -> Choice:
        """What is read before anything is chosen."""

    def choose(self, document: CachedDocument, kept_ratio: float, queries: Mapping[int, Tensor]) -> Choice:
        """queries: leader → [num_heads, num_voters, head_dim]."""


@dataclass(frozen=True)
class Unmoved:
    """Reads the same whatever is asked: everything, or what WindowKV as published chose before the question."""

    is_full: bool
    passes: int = 0
    chooses_midway: bool = False
    reselect_every: int = 0
    vote_tokens: int = 1
    recent_voters: int = 1
    layers: tuple[int, ...] = ()

    def begin(self, document: CachedDocument, kept_ratio: float) -> Choice:
        layout, num_tokens = document.layout, document.num_tokens
        if self.is_full:
            windows, fidelity = (
                [tuple(layout.full_windows(group, num_tokens)) for group in layout.groups],
                1.0,
            )
        else:
            selection = document.published(int(kept_ratio * document.full_bytes))
            windows, fidelity = list(selection.windows), selection.fidelity
        tokens = [for_all_heads(tokens_of(chosen, layout, num_tokens), layout) for chosen in windows]
        return Choice(tokens, fidelity, bytes_of(windows, layout))

    def choose(self, document: CachedDocument, kept_ratio: float, queries: Mapping[int, Tensor]) -> Choice:
        raise AssertionError("nobody listens for it")
