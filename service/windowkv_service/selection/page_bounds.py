"""The least and the greatest of every channel of a page's keys: no key in it scores more (Quest, arXiv 2406.10774)."""

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

    def flat(self) -> Tensor:
        """low and high one after the other as bytes, [size_bytes] uint8; from_flat restores them exactly."""
        return torch.stack([self.low, self.high]).view(-1).view(torch.uint8)

    @classmethod
    def from_flat(
        cls,
        flat: Tensor,
        *,
        num_tokens: int,
        num_kv_heads: int,
        head_dim: int,
        window_size: int,
        dtype: torch.dtype,
    ) -> PageBounds:
        """What flat() gave, as views of it. Any other length than the shape asks for is refused."""
        expected = cls.count_bytes(
            num_tokens, num_kv_heads, head_dim, window_size=window_size, itemsize=dtype.itemsize
        )
        if len(flat) != expected:
            raise ValueError(f"page bounds of this shape take {expected} bytes, not {len(flat)}")
        both = flat.view(dtype).view(2, -1, num_kv_heads, head_dim)
        return cls(both[0], both[1], num_tokens, window_size)

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
