"""Quest (arXiv 2406.10774): pages are ranked by the most that any of their keys could score.

Code consulted: mit-han-lab/Quest, evaluation/quest_attention.py (MIT).

A page is a window. Of its keys, after RoPE, the minimum and the maximum of every channel are kept; no key in it can
score more against a query than Σ_c max(q_c · min_c, q_c · max_c).

How an engine holds it: PageBounds stands where a leader's quantized keys stand. build it from a layer's keys, count
size_bytes, spill to_bytes and take it back from_bytes; at a question, score answers WindowScores as score_leader_keys
does, so that choice and fidelity are the same code. Every selectable layer group has bounds of its own, of its first
layer, and is led by it.

What we do differently:
- Quest chooses anew for every query head at every generated token, and reads all keys from device memory. Here a
  question chooses once, for all heads of a group's layers: bounds of all its voting queries and heads become shares
  of attention (a softmax over pages, a page's tokens counted), and the mean share ranks. Pages that are not chosen
  need not be on the device.
- Quest leaves the first two layers dense. Here every byte counts, and they are chosen for like the others.
- One layer of a group bounds for all of it: 1 / (window_size · layers per group) of the cache, where Quest's metadata
  takes 1 / page size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_kernels import WindowScores


@dataclass(frozen=True)
class PageBounds:
    """low, high: [num_windows, num_kv_heads, head_dim], in the type of the keys; num_tokens: the prompt's."""

    low: Tensor
    high: Tensor
    num_tokens: int
    window_size: int

    @classmethod
    def build(cls, keys: Tensor, window_size: int) -> PageBounds:
        """keys: [num_tokens, num_kv_heads, head_dim], after RoPE."""
        num_tokens = keys.shape[0]
        padding = -num_tokens % window_size
        # A ragged page repeats its last key, which changes no bound.
        whole = torch.cat([keys, keys[-1:].expand(padding, -1, -1)])
        low, high = whole.view(-1, window_size, *keys.shape[1:]).aminmax(dim=1)
        return cls(low, high, num_tokens, window_size)

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.low, self.high))

    @staticmethod
    def count_bytes(
        num_tokens: int, num_kv_heads: int, head_dim: int, *, window_size: int, itemsize: int
    ) -> int:
        """size_bytes, before there are keys."""
        return 2 * -(-num_tokens // window_size) * num_kv_heads * head_dim * itemsize

    def bounds(self, queries: Tensor) -> Tensor:
        """queries [num_heads, m, head_dim] → fp32 [num_heads, m, num_windows], above any key's q·k in the window."""
        return torch.cat(list(self._bounds_by_kv_head(queries)))

    def score(self, queries: Tensor, *, scale: float, softcap: float | None = None) -> WindowScores:
        """queries [num_heads, m, head_dim] of a question, after RoPE; all of them vote."""
        logits = self.bounds(queries) * scale
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        shares = (logits + self._num_in_window().log()).softmax(dim=-1).mean(dim=(0, 1))
        return WindowScores(shares, shares)

    def _bounds_by_kv_head(self, queries: Tensor) -> Iterator[Tensor]:
        for head, own in enumerate(queries.float().chunk(self.low.shape[1])):
            low, high = self.low[:, head].float().t(), self.high[:, head].float().t()
            # max(q·low, q·high) channel by channel: high where q is positive, low where it is not.
            yield own.clamp(min=0) @ high + own.clamp(max=0) @ low

    def _num_in_window(self) -> Tensor:
        counts = torch.full((self.low.shape[0],), float(self.window_size), device=self.low.device)
        counts[-1] = self.num_tokens - (self.low.shape[0] - 1) * self.window_size
        return counts
