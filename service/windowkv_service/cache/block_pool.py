"""The books of one arena of equal blocks: which are free, which are used, and whose bytes the others still
hold.

A block is used (references > 0), cached (no references, its bytes still known by their address) or free.
Taking a block for new bytes uses up the free ones first, then forgets the cached one that was released
longest ago. Single-threaded; every call is O(1) or O(blocks touched).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from windowkv_service.domain.keys import Address


class PoolFull(Exception):
    """Fewer blocks are free or cached than were asked for."""


class BlockPool:
    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._address_of: list[Address | None] = [None] * num_blocks
        self._id_of: dict[Address, int] = {}
        self._free = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # released longest ago first

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free - self.num_cached

    @property
    def num_available(self) -> int:
        return self.num_free + self.num_cached

    def references(self, block_id: int) -> int:
        return self._references[block_id]

    def address_of(self, block_id: int) -> Address | None:
        return self._address_of[block_id]

    def find(self, address: Address) -> int | None:
        """The block that holds these bytes; it may be taken away by the next take()."""
        return self._id_of.get(address)

    def share(self, address: Address) -> int | None:
        """find, and retain what is found."""
        block_id = self._id_of.get(address)
        if block_id is not None:
            self.retain([block_id])
        return block_id

    def take(self, n: int) -> list[int]:
        """n blocks for new bytes, with one reference each and no address. PoolFull takes nothing."""
        if n > self.num_available:
            raise PoolFull(f"{n} blocks asked for, {self.num_available} of {self.num_blocks} available")
        while len(self._free) < n:
            self._uncache(next(iter(self._cached)))
        taken = [self._free.pop() for _ in range(n)]
        for block_id in taken:
            self._references[block_id] = 1
        return taken

    def bind(self, block_id: int, address: Address) -> None:
        """The block now holds the bytes of address, complete. If another block holds them already, that one
        stays the one to find and this one remains anonymous."""
        assert self._references[block_id] > 0, f"block {block_id} is bound but not used"
        held = self._address_of[block_id]
        assert held is None or held == address, f"block {block_id} holds other bytes"
        if self._id_of.setdefault(address, block_id) == block_id:
            self._address_of[block_id] = address

    def retain(self, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            if self._references[block_id] == 0:
                assert block_id in self._cached, f"block {block_id} is free and cannot be retained"
                del self._cached[block_id]
            self._references[block_id] += 1

    def release(self, block_ids: Sequence[int]) -> None:
        """Give up one reference each. Of blocks released together the last is forgotten first: a prefix whose
        beginning is gone is of no use."""
        for block_id in reversed(block_ids):
            assert self._references[block_id] > 0, f"block {block_id} is released but not used"
            self._references[block_id] -= 1
            if self._references[block_id] > 0:
                continue
            if self._address_of[block_id] is None:
                self._free.append(block_id)
            else:
                self._cached[block_id] = None

    def forget(self, address: Address) -> None:
        """Never find these bytes again; who uses their block now goes on using it."""
        block_id = self._id_of.pop(address, None)
        if block_id is None:
            return
        self._address_of[block_id] = None
        if self._references[block_id] == 0:
            del self._cached[block_id]
            self._free.append(block_id)

    def check_integrity(self) -> None:
        """Raise AssertionError unless every block is exactly one of free, cached and used, and addresses
        agree."""
        free, cached = set(self._free), set(self._cached)
        used = {block_id for block_id, count in enumerate(self._references) if count > 0}
        assert len(free) == len(self._free), "a block is free twice"
        everything = free | cached | used
        assert len(everything) == len(free) + len(cached) + len(used), "a block is two things at once"
        assert len(everything) == self.num_blocks, "a block is lost"
        assert min(self._references, default=0) >= 0, "a block was released too often"
        known = {address: i for i, address in enumerate(self._address_of) if address is not None}
        assert known == self._id_of, "addresses and blocks disagree"
        assert all(self._address_of[i] is None for i in free), "a free block is known by an address"
        assert all(self._address_of[i] is not None for i in cached), "a cached block holds nobody's bytes"

    def _uncache(self, block_id: int) -> None:
        del self._cached[block_id]
        address = self._address_of[block_id]
        assert address is not None
        del self._id_of[address]
        self._address_of[block_id] = None
        self._free.append(block_id)
