"""What one answer reads of a cached document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from offline.digest import Digests
from windowkv_service.kv.layout import KVLayout


@dataclass(frozen=True)
class Choice:
    """tokens: per layer group, ascending positions [num_kv_heads, S]; -1 behind them where a head has fewer.

    weights: per layer group, what is added to the scores of its tokens [S]; none: nothing is.
    digests: those that stand for the other tokens; covering: per layer group, which of them.
    fidelity: share of the leaders' attention mass in what was chosen.
    size_bytes: what the device stores for it, indices and digests included.
    """

    tokens: Sequence[Tensor]
    fidelity: float
    size_bytes: int
    weights: Sequence[Tensor] = ()
    digests: Digests | None = None
    covering: Sequence[Tensor] = ()

    def with_digests(self, digests: Digests) -> Choice:
        """The same with digests of what it does not read; their bytes are not added."""
        covering = [digests.of_unread(tokens.flatten()) for tokens in self.tokens]
        return replace(self, digests=digests, covering=covering)


def tokens_of(windows: Sequence[int], layout: KVLayout, num_tokens: int) -> Tensor:
    """The positions [S] that windows hold."""
    starts = torch.tensor(list(windows), dtype=torch.long)[:, None] * layout.window_size
    tokens = (starts + torch.arange(layout.window_size)).flatten()
    return tokens[tokens < num_tokens]


def for_all_heads(tokens: Tensor, layout: KVLayout) -> Tensor:
    """[S] → [num_kv_heads, S]."""
    return tokens.expand(layout.num_kv_heads, -1)


def bytes_of(windows: Sequence[Sequence[int]], layout: KVLayout) -> int:
    """What the blocks of windows take; windows per layer group."""
    return sum(
        len(chosen) * layout.block_bytes(group) for group, chosen in zip(layout.groups, windows, strict=True)
    )
