"""Device memory: the arenas that hold blocks, and the staging of a running prefill."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from windowkv_service.kv.layout import KVGroup, KVLayout


class Arenas:
    """One tensor of equal blocks per block shape; groups of the same shape share an arena.

    An arena is [num_blocks, num_layers, 2, window_size, num_kv_heads, head_dim] and is named by its number of layers.
    """

    def __init__(
        self, layout: KVLayout, num_blocks: Mapping[int, int], *, dtype: torch.dtype, device: torch.device
    ):
        self.layout = layout
        self.tensors = {
            arena: torch.zeros((num_blocks[arena], *_shape(layout, arena)), dtype=dtype, device=device)
            for arena in sorted({len(group.layers) for group in layout.groups})
        }

    @staticmethod
    def arena_of(group: KVGroup) -> int:
        return len(group.layers)

    def of(self, group: KVGroup) -> Tensor:
        return self.tensors[self.arena_of(group)]

    def strips_of(self, group: KVGroup) -> Tensor:
        """The group's arena cut into strips, [num_strips, 1, 2, window_size, 1, head_dim]; a view."""
        return self.of(group).view(-1, 1, 2, self.layout.window_size, 1, self.layout.head_dim)

    @staticmethod
    def blocks_that_fit(layout: KVLayout, device_tier_bytes: int) -> dict[int, int]:
        """Share device_tier_bytes over the arenas in proportion to what a full cache puts into each."""
        per_window: dict[int, int] = {}
        for group in layout.groups:
            arena = len(group.layers)
            per_window[arena] = per_window.get(arena, 0) + 1
        window_bytes = sum(layout.block_bytes(group) for group in layout.groups)
        num_windows = max(1, device_tier_bytes // window_bytes)
        return {arena: num_windows * count for arena, count in per_window.items()}


def _shape(layout: KVLayout, num_layers: int) -> tuple[int, int, int, int, int]:
    return (num_layers, 2, layout.window_size, layout.num_kv_heads, layout.head_dim)


class Staging:
    """The full KV of one prompt while it is prefilled: [num_owning_layers, 2, capacity, num_kv_heads, head_dim].

    rows maps a layer to its row; layers that read another layer's KV share its row.
    """

    def __init__(self, layout: KVLayout, capacity: int, *, dtype: torch.dtype, device: torch.device) -> None:
        owning = [layer for group in layout.groups for layer in group.layers]
        own_rows = {layer: row for row, layer in enumerate(owning)}
        self.rows = {layer: own_rows[owner] for layer, owner in enumerate(layout.owners)}
        shape = (len(owning), 2, capacity, layout.num_kv_heads, layout.head_dim)
        # zeros: what a sliding layer does not see is never written, and must not be NaN behind its mask
        self.tensor = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def size_bytes(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [num_tokens, num_kv_heads, head_dim] of tokens start… of a layer that owns its KV."""
        end = start + keys.shape[0]
        self.tensor[self.rows[layer], 0, start:end] = keys
        self.tensor[self.rows[layer], 1, start:end] = values

    def write_at(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """The same of tokens at positions [num_tokens]."""
        self.tensor[self.rows[layer], 0, positions] = keys
        self.tensor[self.rows[layer], 1, positions] = values

    def keys(self, layer: int, num_tokens: int) -> Tensor:
        """[num_tokens, num_kv_heads, head_dim]; a view."""
        return self.tensor[self.rows[layer], 0, :num_tokens]

    def values(self, layer: int, num_tokens: int) -> Tensor:
        return self.tensor[self.rows[layer], 1, :num_tokens]
