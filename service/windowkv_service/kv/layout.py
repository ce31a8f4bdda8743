"""How a model's KV cache is cut into layer groups and windows.

A block is the K and V of one window of consecutive tokens for the layers of one group:
[num_layers, 2, window_size, num_kv_heads, head_dim], one contiguous piece of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod


@dataclass(frozen=True)
class KVGroup:
    """Layers that share their windows and their blocks. sliding_window is None where attention sees everything."""

    index: int
    layers: tuple[int, ...]
    sliding_window: int | None = None

    @property
    def is_selectable(self) -> bool:
        """Only layers that look at everything have something to select."""
        return self.sliding_window is None


@dataclass(frozen=True)
class KVLayout:
    """groups partition the layers that own a KV cache; owners[l] is the layer whose KV layer l reads."""

    groups: tuple[KVGroup, ...]
    owners: tuple[int, ...]
    window_size: int
    num_kv_heads: int
    head_dim: int
    itemsize: int  # bytes of one stored number

    @classmethod
    def plan(
        cls,
        owners: Sequence[int],
        sliding_windows: Sequence[int | None],
        *,
        group_size: int,
        window_size: int,
        num_kv_heads: int,
        head_dim: int,
        itemsize: int,
    ) -> KVLayout:
        """Group the layers that own their KV: group_size consecutive full-attention layers each, what is left over
        last in a smaller group; sliding-window layers in groups of their own per window length. Layers that read
        another layer's KV join no group: their owner's blocks serve them."""
        owning = [layer for layer, owner in enumerate(owners) if owner == layer]
        groups: list[KVGroup] = []
        for sliding in dict.fromkeys(sliding_windows[layer] for layer in owning):
            alike = [layer for layer in owning if sliding_windows[layer] == sliding]
            for start in range(0, len(alike), group_size):
                groups.append(KVGroup(len(groups), tuple(alike[start : start + group_size]), sliding))
        return cls(tuple(groups), tuple(owners), window_size, num_kv_heads, head_dim, itemsize)

    @cached_property
    def places(self) -> dict[int, tuple[int, int]]:
        """layer → (its group's index, its place in the group's blocks), for every layer, owning or reading."""
        own = {
            layer: (group.index, place) for group in self.groups for place, layer in enumerate(group.layers)
        }
        return {layer: own[owner] for layer, owner in enumerate(self.owners)}

    @property
    def selectable_groups(self) -> tuple[KVGroup, ...]:
        return tuple(group for group in self.groups if group.is_selectable)

    def num_windows(self, num_tokens: int) -> int:
        return ceil(num_tokens / self.window_size)

    def block_shape(self, group: KVGroup) -> tuple[int, int, int, int, int]:
        return (len(group.layers), 2, self.window_size, self.num_kv_heads, self.head_dim)

    def num_lanes(self, group: KVGroup) -> int:
        """How many pairs of a layer and a KV head share the group's blocks."""
        return len(group.layers) * self.num_kv_heads

    def block_bytes(self, group: KVGroup) -> int:
        return prod(self.block_shape(group)) * self.itemsize

    @property
    def strip_bytes(self) -> int:
        """K and V of window_size tokens of one layer and one KV head."""
        return 2 * self.window_size * self.head_dim * self.itemsize

    @property
    def bytes_per_token(self) -> int:
        """K and V of one token over all owning layers."""
        num_layers = sum(len(group.layers) for group in self.groups)
        return num_layers * 2 * self.num_kv_heads * self.head_dim * self.itemsize

    def full_bytes(self, num_tokens: int) -> int:
        """The uncompressed cache of num_tokens, without the padding of a ragged last window."""
        return num_tokens * self.bytes_per_token

    def full_windows(self, group: KVGroup, num_tokens: int) -> range:
        """The windows that a full cache of num_tokens consists of: all, or those that a sliding layer still sees from
        the end of the last whole window on, which is where a longer prompt continues."""
        end = self.num_windows(num_tokens)
        if group.sliding_window is None:
            return range(end)
        return range(max(0, num_tokens // self.window_size - self.reach(group)), end)

    def reach(self, group: KVGroup) -> int:
        """How many windows back a sliding layer sees."""
        assert group.sliding_window is not None
        return ceil(group.sliding_window / self.window_size)
