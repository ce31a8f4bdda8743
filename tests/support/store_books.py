"""A store over two arenas, and short ways to fill it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from entries import Clock, entry, place

from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.store import PrefixStore


class Books:
    """A store over two arenas of num_blocks each, and short ways to fill it."""

    def __init__(self, num_blocks: int = 20) -> None:
        self.clock = Clock()
        self.pools = {0: BlockPool(num_blocks), 1: BlockPool(num_blocks)}
        self.store = PrefixStore(self.clock, self.pools)

    def publish(self, token_ids: Any, **more: Any) -> Entry:
        made = entry(token_ids, now=self.clock.now, **more)
        self.store.reserve(made.cache_id)
        made.blocks = place(made, self.pools)
        made.index = object()
        self.store.publish(made)
        self.store.check_integrity()
        return made

    @property
    def free(self) -> Mapping[int, int]:
        return {arena: pool.num_free for arena, pool in self.pools.items()}
