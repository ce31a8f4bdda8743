"""A prompt as the engine handles it: its tokens, whose they are, and how its windows are addressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from windowkv_service.domain.keys import Address, Namespace, chain_digests
from windowkv_service.kv.layout import KVGroup, KVLayout

Windows = Sequence[Sequence[int]]  # per layer group, ascending
Blocks = list[list[int]]  # per layer group, aligned with the windows: ids in the group's arena


@dataclass(frozen=True)
class Prompt:
    token_ids: Sequence[int]
    namespace: Namespace
    layout: KVLayout

    @cached_property
    def chain(self) -> list[bytes]:
        """One digest per window, over all tokens up to its end."""
        return chain_digests(self.token_ids, self.layout.window_size)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    def address(self, group: KVGroup, window: int) -> Address:
        return self.namespace.block(self.chain[window], group.index)

    def all_windows(self) -> Windows:
        """What a full cache consists of: every window of every group that its layers can still see."""
        return [list(self.layout.full_windows(group, self.num_tokens)) for group in self.layout.groups]

    def count_kept(self, windows: Windows) -> int:
        """Tokens in the windows, mean over the layer groups that select; a ragged last window counts what it holds."""
        groups = self.layout.selectable_groups or self.layout.groups
        return round(sum(self._count(windows[group.index]) for group in groups) / len(groups))

    def _count(self, windows: Sequence[int]) -> int:
        size = self.layout.window_size
        return sum(min(size, self.num_tokens - window * size) for window in windows)

    def block_bytes(self, windows: Windows) -> int:
        """What the windows take on the device, whole blocks counted."""
        return sum(len(windows[group.index]) * self.layout.block_bytes(group) for group in self.layout.groups)
