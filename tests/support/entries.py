"""Entries, pools and a clock for tests of the books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.entry import Arena, Entry, PlacedBlock
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.keys import Namespace
from windowkv_service.domain.requests import Compression, Retention

NAMESPACE = Namespace(b"model" * 6, b"secret")
WINDOW_SIZE = 4
NUM_GROUPS = 2


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def entry(
    token_ids: Sequence[int],
    *,
    kept: Sequence[int] | None = None,
    tenant: str = "tenant",
    now: float = 1_000_000.0,
    ttl_s: float = 3600.0,
    retention: Retention = Retention.FULL,
    min_fidelity: float | None = None,
    codec: Codec = Codec.EXACT,
    **more: Any,
) -> Entry:
    """Located, not resident. kept: the windows kept in every group, all of them where None."""
    compression = Compression(kept_ratio=0.5, retention=retention, min_fidelity=min_fidelity, codec=codec)
    everything = tuple(range(-(-len(token_ids) // WINDOW_SIZE)))
    windows = (everything if kept is None else tuple(kept),) * NUM_GROUPS
    made = Entry(
        cache_id=NAMESPACE.cache_id(token_ids, compression),
        tenant=tenant,
        token_ids=token_ids,  # type: ignore[arg-type]  # made an array by Entry
        compression=compression,
        window_size=WINDOW_SIZE,
        windows=windows,
        retained=(everything,) * NUM_GROUPS if retention is Retention.FULL else windows,
        create_time=now,
        expire_time=now + ttl_s,
        **more,
    )
    made.locate(NAMESPACE)
    return made


def place(made: Entry, pools: Mapping[Arena, BlockPool]) -> tuple[tuple[PlacedBlock, ...], ...]:
    """Blocks for the entry's windows, one reference each; group g lives in arena g. What is there is
    shared."""
    rows = []
    for group, (windows, addresses) in enumerate(zip(made.windows, made.block_addresses, strict=True)):
        rows.append(tuple((group, _block(pools[group], addresses[window])) for window in windows))
    return tuple(rows)


def _block(pool: BlockPool, address: bytes) -> int:
    block_id = pool.share(address)
    if block_id is None:
        (block_id,) = pool.take(1)
        pool.bind(block_id, address)
    return block_id
