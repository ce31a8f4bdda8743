"""The record of a cached prompt."""

from __future__ import annotations

from array import array

import pytest
from entries import NAMESPACE, entry

from windowkv_service.cache.entry import Entry
from windowkv_service.domain.keys import chain_digests
from windowkv_service.domain.requests import Retention
from windowkv_service.domain.results import Tier


def test_tokens_are_kept_as_an_array() -> None:
    assert entry([1, 2, 3]).token_ids == array("I", [1, 2, 3])


def test_every_retained_window_has_an_address_per_group() -> None:
    made = entry(range(10), kept=[0, 2])
    assert [sorted(row) for row in made.block_addresses] == [[0, 1, 2], [0, 1, 2]]
    assert len(set(made.addresses)) == 6


def test_without_full_retention_only_kept_windows_have_addresses() -> None:
    made = entry(range(10), kept=[0, 2], retention=Retention.SELECTED)
    assert [sorted(row) for row in made.block_addresses] == [[0, 2], [0, 2]]


def test_addresses_are_the_namespaces() -> None:
    made = entry(range(10), profile_digest=b"profile", index_pieces=((0, 1), (3, 2)))
    digests = chain_digests(range(10), 4)
    assert made.block_addresses[1][2] == NAMESPACE.block(digests[2], 1)
    assert made.index_addresses == tuple(
        NAMESPACE.index(digests[-1], b"profile", leader, piece) for leader, piece in ((0, 0), (3, 0), (3, 1))
    )
    assert made.manifest_address == NAMESPACE.manifest(made.cache_id)


@pytest.mark.parametrize(
    ("on_host", "on_redis", "below"),
    [(False, False, None), (False, True, Tier.REDIS), (True, True, Tier.HOST), (True, False, Tier.HOST)],
)
def test_the_nearest_tier_below_is_known(on_host: bool, on_redis: bool, below: Tier | None) -> None:
    assert entry(range(4), on_host=on_host, on_redis=on_redis).tier_below is below


def test_blocks_of_strips_have_addresses_of_their_own_that_say_which_tokens_they_hold() -> None:
    def keeping(*positions: int) -> Entry:
        made = entry(range(10), retention=Retention.SELECTED)
        made.windows, made.retained = ((0, 1), made.windows[1]), ((), made.windows[1])
        made.tokens = {0: (array("I", positions),)}
        made.locate(NAMESPACE)
        return made

    one, other = keeping(1, 2, 3, 4, 9), keeping(1, 2, 3, 5, 9)
    assert len(one.strip_addresses) == 2
    assert one.block_addresses[0] == {}
    assert one.block_addresses[1] == other.block_addresses[1]
    assert not set(one.strip_addresses) & set(other.strip_addresses)
    assert set(one.addresses) == {*one.strip_addresses, *one.block_addresses[1].values()}
