"""Who still needs the bytes of an address: entries that share a prefix share its blocks in every tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from windowkv_service.domain.keys import Address


class Claims:
    """How many claim each address; whoever claims one twice counts once."""

    def __init__(self) -> None:
        self._counts: Counter[Address] = Counter()

    def __contains__(self, address: Address) -> bool:
        return address in self._counts

    def claim(self, addresses: Iterable[Address]) -> None:
        self._counts.update(set(addresses))

    def release(self, addresses: Iterable[Address]) -> None:
        for address in set(addresses):
            self._counts[address] -= 1
            if self._counts[address] == 0:
                del self._counts[address]

    def check_integrity(self, claimed: Iterable[Iterable[Address]]) -> None:
        expected = Counter(address for addresses in claimed for address in set(addresses))
        assert expected == self._counts, "the claims on addresses are miscounted"
