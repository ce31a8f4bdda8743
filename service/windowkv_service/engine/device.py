"""The device tier: the books of blocks (pools) and the memory they stand for (arenas), kept in step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.entry import Arena
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.tiers.base import Miss
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import MissReason, Tier, TierHealth, TierStatus
from windowkv_service.kv.buffers import Arenas
from windowkv_service.kv.layout import KVGroup
from windowkv_service.kv.packing import Packing
from windowkv_service.kv.snapshot import dtype_name, read_block, write_block


class DeviceTier:
    """Blocks by content address, in the model's memory. Owned by the worker's thread.

    As a Tier it holds frames that nobody has pinned: what put writes may leave as soon as room is needed.
    """

    tier = Tier.DEVICE

    def __init__(
        self,
        arenas: Arenas,
        pools: Mapping[Arena, BlockPool],
        clock: Callable[[], float],
        *,
        is_poisoned: bool = False,
    ) -> None:
        """is_poisoned: blocks are handed out full of NaN, so that reading what was not written shows at once."""
        self.arenas = arenas
        self.pools = pools
        self._clock = clock
        self._is_poisoned = is_poisoned
        self._expiry: dict[Address, float] = {}

    def pool(self, group: KVGroup) -> BlockPool:
        return self.pools[self.arenas.arena_of(group)]

    def take(self, arena: int, count: int) -> list[int]:
        """So many blocks for new bytes, one reference each; PoolFull takes nothing."""
        block_ids = self.pools[arena].take(count)
        if self._is_poisoned:
            self.arenas.tensors[arena][block_ids] = float("nan")
        return block_ids

    def share(self, group: KVGroup, address: Address) -> int | None:
        """The block that holds address, retained; None when the device does not have it."""
        return self.pool(group).share(address)

    def fits(self, group: KVGroup, packing: Packing, frame: Frame) -> bool:
        """Whether the bytes are a block of the group, packed like this."""
        return _fits(self.arenas.of(group), packing, frame)

    def put(self, frames: Sequence[Frame], ttl_s: float) -> list[bool]:
        return [self._put(frame, ttl_s) for frame in frames]

    def _put(self, frame: Frame, ttl_s: float) -> bool:
        arena = self.arenas.tensors.get(frame.shape[0]) if frame.shape else None
        if arena is None or ttl_s <= 0 or frame.kind is not FrameKind.BLOCK:
            return False
        if not _fits(arena, Packing(), frame):
            return False
        pool = self.pools[frame.shape[0]]
        if self._find(frame.address) is None:
            if pool.num_available == 0:
                return False
            block_ids = pool.take(1)
            write_block(arena[block_ids[0]], frame.payload)
            pool.bind(block_ids[0], frame.address)
            pool.release(block_ids)
        self._expiry[frame.address] = max(self._expiry.get(frame.address, 0.0), self._clock() + ttl_s)
        return True

    def get(self, addresses: Sequence[Address], kind: FrameKind) -> list[Frame | Miss]:
        return [self._get(address, kind) for address in addresses]

    def _get(self, address: Address, kind: FrameKind) -> Frame | Miss:
        found = self._find(address)
        if found is None or kind is not FrameKind.BLOCK:
            return Miss(MissReason.NOT_CACHED)
        block = self.arenas.tensors[found[0]][found[1]]
        return Frame(kind, address, dtype_name(block.dtype), tuple(block.shape), read_block(block))

    def _find(self, address: Address) -> tuple[Arena, int] | None:
        if self._expiry.get(address, float("inf")) <= self._clock():
            self.drop([address])
        for arena, pool in self.pools.items():
            if (block_id := pool.find(address)) is not None:
                return arena, block_id
        return None

    def has(self, addresses: Sequence[Address]) -> list[bool]:
        return [self._find(address) is not None for address in addresses]

    def extend(self, addresses: Sequence[Address], ttl_s: float) -> None:
        for address in addresses:
            if address in self._expiry:
                self._expiry[address] = max(self._expiry[address], self._clock() + ttl_s)

    def drop(self, addresses: Sequence[Address]) -> bool:
        for address in addresses:
            self._expiry.pop(address, None)
            for pool in self.pools.values():
                pool.forget(address)
        return True

    def close(self) -> None:
        self._expiry.clear()

    def status(self) -> TierStatus:
        sizes = {
            arena: tensor[0].numel() * tensor.element_size() for arena, tensor in self.arenas.tensors.items()
        }
        capacity = sum(pool.num_blocks * sizes[arena] for arena, pool in self.pools.items())
        used = sum(pool.num_used * sizes[arena] for arena, pool in self.pools.items())
        return TierStatus(self.tier, TierHealth.UP, capacity, used)


def _fits(arena: Tensor, packing: Packing, frame: Frame) -> bool:
    size = packing.size_bytes(arena.shape[1:], arena.element_size())
    facts = (frame.shape, frame.dtype, frame.codec, frame.payload.nbytes)
    return facts == (tuple(arena.shape[1:]), dtype_name(arena.dtype), packing.codec, size)
